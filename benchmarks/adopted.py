"""Compare adopted models: what INT8 keeps of FP32's answers, and what it saves, for the table of ``docs/adopt.md``.

    python -m capsule_edge.benchmarks.adopted FOLDER... --data DIR [--split NAME] [--naive] [--update FILE.md]

Each FOLDER is one that ``capsule-edge adopt`` wrote. Agreement and macro-F1 come from its certificate of shipping. For
each folder FP32 and INT8 take turns on every engine that reads them, one frame on one thread. With ``--naive`` the FP32
file is also quantised as onnxruntime's documentation shows it (``quantize_static`` with its defaults), measured on the
same frames, and takes turns with the others. The last line of output is JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from capsule_edge.evaluation.classification import Predictions, load_frames, predict, score_files
from capsule_edge.evaluation.datasets import Dataset, load_dataset
from capsule_edge.runtime.diagnostics import describe_cpu
from capsule_edge.runtime.errors import BackendError, InputError, ModelError
from capsule_edge.runtime.inference import METADATA_KEY, Backend, installed_backends, open_model

from .documents import to_table, update_document
from .latency import measure, open_each, summarise

__all__ = ["AdoptedRow", "measure_adopted", "quantise_naively", "render_adopted"]

_FILES = ("model.fp32.onnx", "model.int8.onnx", "model.fp32.tflite", "model.int8.tflite")
# Frames on which the naive way is calibrated: the documentation uses a few hundred.
_NAIVE_FRAMES = 128


@dataclass(frozen=True)
class AdoptedRow:
    """One adopted model, or the naive way of quantising it.

    Attributes:
        name: The name of the model.
        size: The side of its input in pixels.
        agreement: The share of frames with FP32's label.
        macro_f1_lost: FP32's macro-F1 less INT8's.
        margin: The median difference between FP32's first and second probability.
        fp32_bytes: The size of the FP32 file.
        int8_bytes: The size of the INT8 file.
        kept_float: The number of layers in float.
        verdict: The verdict of the certificate; None for the naive way, which has none.
        p50_ms: The median latency in ms by engine: FP32, INT8.
    """

    name: str
    size: int
    agreement: float
    macro_f1_lost: float | None
    margin: float
    fp32_bytes: int
    int8_bytes: int
    kept_float: int
    verdict: str | None
    p50_ms: dict[str, tuple[float, float]]


def measure_adopted(
    folder: Path, dataset: Dataset, *, rounds: int, naive: bool = False, work: Path | None = None
) -> list[AdoptedRow]:
    """Measure one adopted folder, and the naive way where asked for.

    Args:
        folder: A folder that ``adopt`` wrote.
        dataset: The labelled frames of the median margin, and of the figures of the naive way.
        rounds: Calls of each file.
        naive: Quantise the FP32 file naively too.
        work: The folder for the naive file.

    Raises:
        InputError: The folder has no adopted files.
    """
    fp32, int8 = (folder / name for name in _FILES[:2])
    if not fp32.is_file() or not int8.is_file():
        raise InputError(
            f"{folder} holds no adopted model", hint="name a folder that 'capsule-edge adopt' wrote"
        )
    files = [folder / name for name in _FILES if (folder / name).is_file()]
    plain = _open_naive(fp32, dataset, work / "model.naive.onnx") if naive and work is not None else None
    if plain is not None:
        files.append(plain.path)
    times = _time(files, rounds)
    opened = open_model(fp32)
    margin = _margin(predict(opened, dataset))
    spec = open_model(int8).spec
    summary = spec.certificates["shipping"]
    common: dict[str, Any] = {"size": spec.input.size, "margin": margin, "fp32_bytes": fp32.stat().st_size}
    rows = [
        AdoptedRow(
            name=spec.name, agreement=float(summary["agreement"]), macro_f1_lost=-float(summary["macro_f1_delta"]),
            int8_bytes=int8.stat().st_size, kept_float=len(spec.provenance.get("kept_float", ())),
            verdict=str(summary["verdict"]), p50_ms=_pairs(times, "model.int8"), **common,
        )
    ]  # fmt: skip
    if plain is not None:
        first, second = score_files([opened, plain], dataset)
        lost = None if first.macro_f1 is None or second.macro_f1 is None else first.macro_f1 - second.macro_f1
        rows.append(
            AdoptedRow(
                name=f"{spec.name}, quantize_static", agreement=second.agreement, macro_f1_lost=lost,
                int8_bytes=second.bytes, kept_float=0, verdict=None, p50_ms=_pairs(times, "model.naive"), **common,
            )
        )  # fmt: skip
    return rows


def _open_naive(fp32: Path, dataset: Dataset, out: Path) -> Backend | None:
    """Quantise a model naively and open it; None, with a line on stderr, where onnxruntime cannot read what it made."""
    try:
        return open_model(quantise_naively(fp32, dataset, out))
    except (ModelError, BackendError) as error:
        print(f"{fp32.parent}, quantize_static: {error}", file=sys.stderr)
        return None


def _margin(predictions: Predictions) -> float:
    ordered = np.sort(predictions.probabilities, axis=1)
    return float(np.median(ordered[:, -1] - ordered[:, -2]))


def _time(files: Sequence[Path], rounds: int) -> dict[tuple[str, str], float]:
    """Return the median latency of each file on each engine that reads it, in ms, by file and engine."""
    backends = open_each(files, installed_backends(), threads=1)
    found = {
        (backend.path.name, backend.name): row["p50_ms"]
        for backend, row in zip(backends, summarise(measure(backends, rounds=rounds)), strict=True)
    }
    for backend in backends:
        backend.close()
    return found


def _pairs(times: dict[tuple[str, str], float], stem: str) -> dict[str, tuple[float, float]]:
    """Return the latencies of FP32 and of the file ``stem`` on each engine that reads both."""
    pairs = {}
    for (file, engine), milliseconds in times.items():
        name, suffix = file.rsplit(".", 1)
        if name == stem and ("model.fp32." + suffix, engine) in times:
            pairs[engine] = times["model.fp32." + suffix, engine], milliseconds
    return pairs


def quantise_naively(fp32: Path, dataset: Dataset, out: Path) -> Path:
    """Quantise an FP32 file as onnxruntime's documentation shows it, and return ``out``.

    The file keeps its description, marked as INT8, so that the engines of capsule-edge open it.

    Args:
        fp32: The FP32 file.
        dataset: Labelled frames; some of them calibrate the ranges.
        out: The file to write.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    spec = open_model(fp32).spec
    rows = np.linspace(0, len(dataset.samples) - 1, min(_NAIVE_FRAMES, len(dataset.samples))).astype(int)
    frames = load_frames(dataset.take(rows.tolist()), spec.input)[1]

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        """Hands out the frames one by one."""

        def __init__(self) -> None:
            self._frames: Iterator[npt.NDArray[np.uint8]] = iter(frames)

        def get_next(self) -> dict[str, Any] | None:
            frame = next(self._frames, None)
            return None if frame is None else {"frames": frame[None]}

    prepared = out.with_suffix(".prepared.onnx")
    quant_pre_process(str(fp32), str(prepared), skip_symbolic_shape=True)
    quantize_static(str(prepared), str(out), Reader(), quant_format=QuantFormat.QDQ)
    prepared.unlink()
    proto = onnx.load(out)
    described = {**spec.to_dict(), "precision": "int8", "saturation_safe": False, "parity": None}
    onnx.helper.set_model_props(proto, {METADATA_KEY: json.dumps(described)})
    onnx.save(proto, out)
    return out


def render_adopted(rows: Sequence[AdoptedRow], note: str) -> str:
    """Return the Markdown table: a row for each model, and below each the naive way where it was measured.

    Args:
        rows: From ``measure_adopted``.
        note: The paragraph below the table.
    """
    engines = sorted({engine for row in rows for engine in row.p50_ms})
    head = ["model, size", "same label as FP32", "macro-F1 lost", "median margin", "FP32, MB", "INT8, MB"]
    head += ["layers in float", "certificate", *(f"{engine}: FP32, INT8, ms" for engine in engines)]
    cells = []
    for row in rows:
        lost = "-" if row.macro_f1_lost is None else f"{row.macro_f1_lost:+.4f}"
        line = [f"{row.name}, {row.size}", f"{row.agreement:.2%}", lost, f"{row.margin:.2f}"]
        line += [
            f"{row.fp32_bytes / 1e6:.1f}",
            f"{row.int8_bytes / 1e6:.1f}",
            str(row.kept_float),
            row.verdict or "",
        ]
        for engine in engines:
            fp32, int8 = row.p50_ms.get(engine, (0.0, 0.0))
            line.append(f"{fp32:.2f}, {int8:.2f} (x {fp32 / int8:.2f})" if int8 else "")
        cells.append(line)
    return f"{to_table(head, cells, right=len(head) - 1)}\n\n{note}"


def main(arguments: Sequence[str] | None = None) -> None:
    options = _make_parser().parse_args(arguments)
    dataset = _spread(load_dataset(options.data, split=options.split), options.frames)
    rows: list[AdoptedRow] = []
    with tempfile.TemporaryDirectory() as work:
        for folder in options.folders:
            print(f"measuring {folder}", file=sys.stderr)
            rows += measure_adopted(
                folder, dataset, rounds=options.rounds, naive=options.naive, work=Path(work)
            )
    cpu = describe_cpu()
    note = (
        f"Latency: median of {options.rounds} rounds of one frame on one thread, all files and engines of a model"
        f" interleaved; {cpu.name}, {cpu.cores} cores. Margins: {len(dataset.samples):,} frames"
        f" of {dataset.root.resolve().name}{f', split {dataset.split}' if dataset.split else ''}."
    )
    table = render_adopted(rows, note)
    print(table)
    if options.update:
        update_document(options.update, table)
    print(json.dumps({"benchmark": "adopted", "rows": [asdict(row) for row in rows]}, allow_nan=False))


def _spread(dataset: Dataset, count: int | None) -> Dataset:
    """Return at most ``count`` frames of a data set, evenly spaced; None takes all."""
    if count is None:
        return dataset
    rows = np.linspace(0, len(dataset.samples) - 1, min(count, len(dataset.samples))).astype(int)
    return dataset.take(rows.tolist())


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER", help="folder that adopt wrote")
    parser.add_argument("--data", type=Path, required=True, help="folder of labelled frames")
    parser.add_argument("--split", help="value of the column split (default: val, if there is one)")
    parser.add_argument("--frames", type=int, help="use so many frames, evenly spaced (default: all)")
    parser.add_argument("--naive", action="store_true", help="also quantise with quantize_static's defaults")
    parser.add_argument("--rounds", type=int, default=60, help="calls of each file (default: %(default)s)")
    parser.add_argument("--update", type=Path, metavar="FILE", help="put the table into this document")
    return parser


if __name__ == "__main__":
    from capsule_edge.evaluation._module import run_module

    run_module(main)
