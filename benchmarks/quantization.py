"""Compare quantised variants of one network: accuracy, size and latency, for the table of ``docs/quantization.md``.

    python -m capsule_edge.benchmarks.quantization VARIANTS --data DIR [--split val] [--update FILE.md]

``VARIANTS`` is a folder that ``capsule_edge.export.tools.variants`` wrote. Accuracy is that of onnxruntime for ONNX
files and of LiteRT for TFLite files. Latency is measured for every file on every engine that reads it; for each number
of threads, all files take turns in one run. The last line of output is JSON.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from capsule_edge.evaluation.classification import Score, score_files
from capsule_edge.evaluation.datasets import Dataset, load_dataset
from capsule_edge.runtime.diagnostics import describe_cpu
from capsule_edge.runtime.errors import InputError
from capsule_edge.runtime.inference import BACKENDS, installed_backends, open_model

from .documents import to_table, update_document
from .latency import measure, open_each, summarise

__all__ = ["find_variants", "time_variants", "to_markdown"]

_FIRST = "fp32.onnx"
# Names of the rows in the order of the table. Other files follow under their own names.
_NAMES = {
    "fp32": "FP32",
    "fp16": "FP16 weights",
    "dynamic": "dynamic range",
    "ptq-minmax": "PTQ, minimum and maximum",
    "ptq-percentile": "PTQ, percentile",
    "ptq-entropy": "PTQ, entropy",
    "ptq-mse": "PTQ, least squared error",
    "qat": "QAT",
}
Latencies = Mapping[tuple[str, str, int], Mapping[str, Any]]


def find_variants(folder: Path) -> list[Path]:
    """Return the model files of a folder in the order of the table, FP32 ONNX first.

    Raises:
        InputError: the folder has no FP32 ONNX file.
    """
    if not (folder / _FIRST).is_file():
        raise InputError(
            f"{folder} holds no {_FIRST}",
            hint="make the variants with python -m capsule_edge.export.tools.variants",
        )
    files = [path for path in folder.iterdir() if path.suffix in (".onnx", ".tflite")]
    order = list(_NAMES)
    return sorted(
        files,
        key=lambda p: (order.index(p.stem) if p.stem in order else len(order), p.stem, p.suffix != ".onnx"),
    )


def time_variants(files: Sequence[Path], *, threads: Sequence[int], rounds: int) -> Latencies:
    """Measure every file on every installed engine that reads it.

    Args:
        files: model files, FP32 ONNX first.
        threads: numbers of threads per call.
        rounds: calls of each file.

    Returns:
        The row of ``latency.summarise`` by (file name, engine, threads). Ratios are relative to FP32 ONNX in
        onnxruntime.
    """
    found = {}
    for count in threads:
        backends = open_each(files, installed_backends(), threads=count)
        for backend, row in zip(backends, summarise(measure(backends, rounds=rounds)), strict=True):
            found[backend.path.name, backend.name, count] = row
            backend.close()
    return found


def to_markdown(scores: Sequence[Score], latencies: Latencies, note: str) -> str:
    """Return the Markdown table: one row per file.

    Args:
        scores: size, accuracy and agreement with FP32 of each file.
        latencies: from ``time_variants``. A cell has p50 in ms and the ratio in brackets. It is empty if the engine
            does not read the file.
        note: the paragraph below the table.
    """
    engines = list(BACKENDS)
    timed = sorted(
        {(engine, threads) for _, engine, threads in latencies},
        key=lambda key: (engines.index(key[0]), key[1]),
    )
    head = ["variant", "file", "size, MB", "macro-F1", "mean AUC", "same label as FP32"]
    head += [f"{engine}, {threads} thread{'s' * (threads > 1)}" for engine, threads in timed]
    rows = []
    for score in scores:
        path = Path(score.file)
        cells = [
            _NAMES.get(path.stem, path.stem),
            "ONNX" if path.suffix == ".onnx" else "TFLite",
            f"{score.bytes / 1e6:.2f}",
            *("-" if value is None else f"{value:.3f}" for value in (score.macro_f1, score.mean_auc)),
            f"{score.agreement:.1%}",
        ]
        for engine, threads in timed:
            row = latencies.get((score.file, engine, threads))
            cells.append("" if row is None else f"{row['p50_ms']:.2f} ({row['ratio']:.2f})")
        rows.append(cells)
    return f"{to_table(head, rows, right=len(head) - 3)}\n\n{note}"


def _note(dataset: Dataset, size: int, rounds: int) -> str:
    videos = len({sample.video_id for sample in dataset.samples})
    name = dataset.root.resolve().name
    text = f"{len(dataset.samples):,} frames of {videos} videos of {name}, split {dataset.split}."
    if rounds:
        text += (
            f" Latency: median of {rounds} rounds of one frame of {size} x {size} in ms, all files and engines"
            " interleaved, and in brackets its ratio to FP32 ONNX in onnxruntime with as many threads;"
            f" {describe_cpu().name}, {describe_cpu().cores} cores."
        )
    return text


def main(arguments: Sequence[str] | None = None) -> None:
    options = _make_parser().parse_args(arguments)
    files, dataset = find_variants(options.variants), load_dataset(options.data, split=options.split)
    opened = [
        open_model(path, backend="litert" if path.suffix == ".tflite" else "onnxruntime") for path in files
    ]
    scores = score_files(opened, dataset, progress=lambda step: print(step, file=sys.stderr))
    threads = options.threads or [1, 2]
    latencies = time_variants(files, threads=threads, rounds=options.rounds) if options.rounds else {}
    table = to_markdown(scores, latencies, _note(dataset, opened[0].spec.input.size, options.rounds))
    print(table)
    if options.update:
        update_document(options.update, table)
    document = {
        "benchmark": "quantization",
        "frames": len(dataset.samples),
        "scores": [dataclasses.asdict(score) for score in scores],
        "latency": [
            {"file": file, "backend": engine, "threads": count, **row}
            for (file, engine, count), row in latencies.items()
        ],
    }
    print(json.dumps(document, allow_nan=False))


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("variants", type=Path, metavar="VARIANTS", help="folder of the model files")
    parser.add_argument("--data", type=Path, required=True, help="folder of labelled frames")
    parser.add_argument("--split", help="value of the column split (default: val, if there is one)")
    parser.add_argument(
        "--threads", type=int, action="append", help="threads per call; repeatable (default: 1 and 2)"
    )
    parser.add_argument(
        "--rounds", type=int, default=100, help="calls of each file; 0 skips latency (default: %(default)s)"
    )
    parser.add_argument("--update", type=Path, metavar="FILE", help="put the table into this document")
    return parser


if __name__ == "__main__":
    from capsule_edge.evaluation._module import run_module

    run_module(main)
