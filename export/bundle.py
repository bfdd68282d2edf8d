"""``capsule-edge export``: a trained RUN becomes four self-describing files, all verified, or nothing."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx

from capsule_edge.evaluation.datasets import Dataset
from capsule_edge.evaluation.parity import parity_summary, with_sha256, write_certificate
from capsule_edge.runtime.errors import ModelError, OutputError
from capsule_edge.runtime.inference import ModelSpec
from capsule_edge.train.qat import check_ranges, keep_float

from .certify import TABLE, Certificate, KerasBackend, certify_files
from .fp32 import ServingModel, build_fp32_onnx, build_fp32_tflite
from .int8 import (
    IntegerModel,
    build_int8_onnx,
    build_int8_tflite,
    check_layers,
    read_integers,
    reference_runner,
)
from .restore_float import restore_layers
from .run_folder import Run, load_run
from .runners import Runner, file_runner, keras_runner, open_file
from .verify import Edge, GraphReport, check_int8_graph, check_outputs, compare_edges, draw_tree, replay

__all__ = ["FILES", "ExportReport", "export_run"]

FILES = {
    "ONNX FP32": "model.fp32.onnx",
    "ONNX INT8": "model.int8.onnx",
    "TFLite FP32": "model.fp32.tflite",
    "TFLite INT8": "model.int8.tflite",
}
_TWINS = {"ONNX INT8": "ONNX FP32", "TFLite INT8": "TFLite FP32"}
# Frames on which each layer is compared; a single one has 1e4 values of most layers.
_LAYER_FRAMES = 8
_TOOLS = (
    "capsule-edge",
    "tensorflow",
    "tf_keras",
    "tensorflow-model-optimization",
    "tf2onnx",
    "onnx",
    "onnxruntime",
)


@dataclass(frozen=True)
class ExportReport:
    """What was written: bytes and SHA-256 by file name, the comparison's edges, the INT8 graph's counts."""

    folder: Path
    files: dict[str, dict[str, Any]]
    edges: list[Edge]
    graph: GraphReport
    saturation_safe: bool
    frames: int
    frames_are: str
    kept_float: tuple[str, ...] = ()
    certificates: list[Certificate] = field(default_factory=list)

    @property
    def tree(self) -> str:
        return draw_tree(self.edges)

    def to_dict(self) -> dict[str, Any]:
        return {
            "folder": str(self.folder),
            "files": self.files,
            "edges": [dataclasses.asdict(edge) | {"holds": edge.holds} for edge in self.edges],
            "int8_graph": dataclasses.asdict(self.graph),
            "saturation_safe": self.saturation_safe,
            "frames": self.frames,
            "frames_are": self.frames_are,
            "kept_float": list(self.kept_float),
            "certificates": self.certificates,
        }


def export_run(
    run_folder: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    dataset: Dataset | None = None,
    recordings: Sequence[Path] = (),
    keep: Sequence[str] = (),
    choose_on: Dataset | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> ExportReport:
    """Write the four model files and ``SHA256SUMS`` into the new folder ``out``.

    On the frames of ``dataset`` (and the events of ``recordings``) the INT8 files are certified: Keras's answers go
    to ``keras-qat.csv``, the certificates to ``certificates/``, their summary into the INT8 files.

    The layers ``keep`` stay in float32 in the INT8 files (``train.kept_layers``), or the fewest that make the gates of
    shipping hold on ``choose_on``, frames that neither training nor the certificates see (``restore``).

    All is written and checked in a folder beside it, which takes its name at the end. Raises ``OutputError``
    when ``out`` holds anything, ``InputError`` for a RUN or frames that cannot be read, ``ModelError`` when a
    check fails and ``GateError`` when a file does not answer as Keras does, which leaves nothing behind.
    """
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError(f"{out} is there and not empty", hint="choose a new folder for --out")
    run = load_run(run_folder)
    keep_float(run.qat, restore_layers(run, choose_on, progress=progress) if choose_on is not None else keep)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise OutputError(f"{out} cannot be written: {error}") from None
    try:
        report = _write_and_verify(run, work, dataset, recordings, progress)
        if out.exists():
            out.rmdir()
        # mkdtemp makes a private folder; what is shipped is for all to read.
        work.chmod(0o755)
        os.replace(work, out)
    except OSError as error:
        raise OutputError(f"{out} cannot be written: {error}") from None
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return dataclasses.replace(report, folder=out)


def _write_and_verify(
    run: Run,
    folder: Path,
    dataset: Dataset | None,
    recordings: Sequence[Path],
    progress: Callable[[str], None],
) -> ExportReport:
    check_ranges(run.qat)
    integers = read_integers(run.qat)
    paths = {name: folder / file for name, file in FILES.items()}
    specs = _write(run, integers, paths, progress)
    progress("checking the INT8 graph")
    graph = check_int8_graph(paths["ONNX INT8"], kept=integers.kept_float)
    runners: dict[str, Runner] = {"Keras FP32": keras_runner(run.fp32), "Keras QAT": keras_runner(run.qat)}
    opened = {name: open_file(path) for name, path in paths.items()}
    runners |= {name: file_runner(backend) for name, backend in opened.items()}
    runners["exact integers"] = reference_runner(integers, run.spec.temperature)
    check_layers(integers, run.qat, run.frames[:_LAYER_FRAMES])
    progress(f"replaying {len(run.frames)} frames ({run.frames_are})")
    answers = replay(runners, run.frames)
    edges = compare_edges(answers, float(integers.logits.scale), kept_float=bool(integers.kept_float))
    broken = [edge for edge in edges if not edge.holds]
    if broken:
        edge = broken[0]
        raise ModelError(
            f"{edge.a} and {edge.b} differ in logits by {edge.measured:.3g}, allowed is {edge.limit:.3g}",
            hint=f"edges that hold: {len(edges) - len(broken)} of {len(edges)}",
        )
    for name in FILES:
        is_int8 = "INT8" in name
        bias = integers.bias if is_int8 else run.fp32.layers[-1].bias.numpy()
        check_outputs(name, answers[name], specs[name], bias, integers if is_int8 else None)
    certificates = []
    if dataset is not None:
        found = certify_files(
            KerasBackend(run.qat, run.spec, folder / TABLE), opened, _TWINS, dataset, folder / TABLE,
            recordings=recordings, progress=progress,
        )  # fmt: skip
        certificates = _write_certificates(found, integers, paths, specs)
    files = {path.name: {"bytes": path.stat().st_size, "sha256": _sha256(path)} for path in paths.values()}
    sums = "".join(f"{entry['sha256']}  {file}\n" for file, entry in sorted(files.items()))
    (folder / "SHA256SUMS").write_bytes(sums.encode())
    return ExportReport(
        folder, files, edges, graph, integers.saturation_safe, len(run.frames), run.frames_are,
        integers.kept_float, certificates,
    )  # fmt: skip


def _write_certificates(
    found: Mapping[str, tuple[Certificate, Certificate]],
    integers: IntegerModel,
    paths: Mapping[str, Path],
    specs: Mapping[str, ModelSpec],
) -> list[Certificate]:
    """Write the summaries into the INT8 files, then the certificates with the files' final hashes."""
    written = []
    for name, pair in found.items():
        spec = specs[name]
        proven = dataclasses.replace(spec, parity={**(spec.parity or {}), **parity_summary(*pair)})
        _write_int8(name, paths[name], integers, proven)
        for certificate in pair:
            final = with_sha256(certificate, "b", _sha256(paths[name]))
            write_certificate(final, paths[name].parent / "certificates")
            written.append(final)
    return written


def _write_int8(name: str, path: Path, integers: IntegerModel, spec: ModelSpec) -> None:
    if name == "ONNX INT8":
        onnx.save(build_int8_onnx(integers, spec), path)
    else:
        path.write_bytes(build_int8_tflite(integers, spec))


def _write(
    run: Run, integers: IntegerModel, paths: dict[str, Path], progress: Callable[[str], None]
) -> dict[str, ModelSpec]:
    """Write the four files; the answer is the spec in each."""
    tools = {tool: importlib.metadata.version(tool) for tool in _TOOLS}
    provenance = {**run.spec.provenance, "exported_with": tools}
    fp32 = dataclasses.replace(run.spec, provenance=provenance)
    serving = ServingModel(run.fp32, fp32)
    progress("writing FP32")
    onnx.save(build_fp32_onnx(serving, fp32), paths["ONNX FP32"])
    paths["TFLite FP32"].write_bytes(build_fp32_tflite(serving, fp32))
    progress("writing INT8")
    specs = {"ONNX FP32": fp32, "TFLite FP32": fp32}
    for name in _TWINS:
        twin = paths[_TWINS[name]]
        specs[name] = dataclasses.replace(
            fp32,
            precision="int8",
            saturation_safe=integers.saturation_safe,
            parity={**(run.spec.parity or {}), "fp32_sha256": _sha256(twin)},
            provenance=provenance
            | ({"kept_float": list(integers.kept_float)} if integers.kept_float else {}),
        )
        _write_int8(name, paths[name], integers, specs[name])
    return specs


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
