"""Export a trained RUN as four self-describing files: FP32 and INT8, each as ONNX and TFLite.

Every file is loaded again and checked. If any check fails, nothing is written.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx

from capsule_edge.evaluation.datasets import Dataset
from capsule_edge.evaluation.parity import parity_summary, with_sha256, write_certificate
from capsule_edge.runtime.errors import ModelError
from capsule_edge.runtime.inference import Backend, ModelSpec
from capsule_edge.train.qat import check_ranges, keep_float

from .certify import TABLE, KerasBackend, certify_files
from .contract import Outputs, Runner
from .fp32 import ServingModel, build_fp32_onnx, build_fp32_tflite
from .int8 import (
    IntegerModel,
    build_int8_onnx,
    build_int8_tflite,
    check_layers,
    read_integers,
    reference_runner,
)
from .new_folder import check_new, hash_file, new_folder, write_sums
from .restore_float import restore_layers
from .run_folder import TrainedRun, load_run
from .runners import file_runner, keras_runner, open_file
from .verify import Edge, GraphReport, check_int8_graph, check_outputs, compare_edges, draw_tree, replay

__all__ = ["FILES", "ExportReport", "export_run"]

FILES = {
    "ONNX FP32": "model.fp32.onnx",
    "ONNX INT8": "model.int8.onnx",
    "TFLite FP32": "model.fp32.tflite",
    "TFLite INT8": "model.int8.tflite",
}
# Each INT8 file and the FP32 file of the same format.
_TWINS = {"ONNX INT8": "ONNX FP32", "TFLite INT8": "TFLite FP32"}
# Frames on which each layer is compared. Even one frame has some 1e4 values of most layers.
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
_Progress = Callable[[str], None]


@dataclass(frozen=True)
class ExportReport:
    """The result of an export.

    Attributes:
        folder: Where the files are.
        files: ``bytes`` and ``sha256`` by file name.
        edges: The comparisons of the models' logits.
        graph: What onnxruntime made of the INT8 ONNX file.
        saturation_safe: Whether the INT8 files answer the same on CPUs whose 16-bit sums saturate.
        frames: The number of frames that the models were compared on.
        frames_are: Where these frames come from: ``replay.npz`` or ``synthetic``.
        kept_float: The names of the layers kept in float32.
        certificates: The certificates, as JSON-ready documents.
    """

    folder: Path
    files: dict[str, dict[str, Any]]
    edges: list[Edge]
    graph: GraphReport
    saturation_safe: bool
    frames: int
    frames_are: str
    kept_float: tuple[str, ...] = ()
    certificates: list[dict[str, Any]] = field(default_factory=list)

    @property
    def tree(self) -> str:
        """The comparisons as text, one a line."""
        return draw_tree(self.edges)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as a JSON-ready document."""
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
    accept_weak: bool = False,
    progress: Callable[[str], None] = lambda _: None,
) -> ExportReport:
    """Export a RUN: write the four model files and ``SHA256SUMS`` into the new folder ``out``.

    The files are written and checked in a temporary folder beside ``out``, which is renamed to ``out`` at the
    end. If anything fails, it is removed.

    Args:
        run_folder: The RUN folder that training wrote.
        out: The folder to make. It may exist if it is empty.
        dataset: Labelled frames to certify the INT8 files on. With it the export also writes the predictions of
            the Keras QAT model (``keras-qat.csv``) and ``certificates/``, and puts a summary of the certificates
            into the INT8 files.
        recordings: Recordings on which the certificates compare the events found.
        keep: Names of layers to keep in float32 in the INT8 files.
        choose_on: Labelled frames that neither training nor the certificates use. With it ``keep`` is ignored: the
            export keeps the fewest layers in float32 with which no gate of shipping fails on these frames
            (``restore_float.restore_layers``).
        accept_weak: Export a model that training found no better than the majority class, or not calibrated. The
            files say so (``provenance.weak``).
        progress: Called with each line of progress.

    Returns:
        What was written and measured.

    Raises:
        OutputError: ``out`` holds something, or cannot be written.
        InputError: The RUN folder or the frames cannot be read.
        ModelError: A check of a file fails, or the model is weak and ``accept_weak`` is False.
        GateError: An INT8 file fails its conversion certificate, or no choice of layers passes the gates.

    Example:
        >>> report = export_run("runs/first", "models/first")
        >>> print(report.tree)
    """
    out = Path(out)
    check_new(out)
    run = load_run(run_folder)
    if run.weak and not accept_weak:
        raise ModelError(
            f"{run_folder} holds a weak model: {'; '.join(run.weak)}",
            hint="train longer or on more data, or export it all the same: --accept-weak",
        )
    keep_float(run.qat, restore_layers(run, choose_on, progress=progress) if choose_on is not None else keep)
    with new_folder(out) as work:
        report = _write_and_verify(run, work, dataset, recordings, progress)
    return dataclasses.replace(report, folder=out)


def _write_and_verify(
    run: TrainedRun, folder: Path, dataset: Dataset | None, recordings: Sequence[Path], progress: _Progress
) -> ExportReport:
    check_ranges(run.qat)
    integers = read_integers(run.qat)
    paths = {name: folder / file for name, file in FILES.items()}
    specs = _write_files(run, integers, paths, progress)
    progress("checking the INT8 graph")
    graph = check_int8_graph(paths["ONNX INT8"], kept=integers.kept_float)
    check_layers(integers, run.qat, run.frames[:_LAYER_FRAMES])
    opened = {name: open_file(path) for name, path in paths.items()}
    progress(f"replaying {len(run.frames)} frames ({run.frames_are})")
    answers = replay(_runners(run, integers, opened), run.frames)
    edges = _check_edges(answers, integers)
    for name in FILES:
        is_int8 = name in _TWINS
        bias = integers.bias if is_int8 else run.fp32.layers[-1].bias.numpy()
        check_outputs(name, answers[name], specs[name], bias, integers if is_int8 else None)
    certificates = []
    if dataset is not None:
        keras, table = KerasBackend(run.qat, run.spec, folder / TABLE), folder / TABLE
        made = certify_files(keras, opened, _TWINS, dataset, table, recordings=recordings, progress=progress)
        certificates = _write_certificates(made, integers, paths, specs)
    return ExportReport(
        folder, write_sums(folder, paths.values()), edges, graph, integers.saturation_safe,
        len(run.frames), run.frames_are, integers.kept_float, certificates,
    )  # fmt: skip


def _runners(run: TrainedRun, integers: IntegerModel, opened: Mapping[str, Backend]) -> dict[str, Runner]:
    """Return every model to compare, by the names that ``verify.graph_replay`` uses."""
    return {
        "Keras FP32": keras_runner(run.fp32),
        "Keras QAT": keras_runner(run.qat),
        **{name: file_runner(backend) for name, backend in opened.items()},
        "exact integers": reference_runner(integers, run.spec.temperature),
    }


def _check_edges(answers: Mapping[str, Outputs], integers: IntegerModel) -> list[Edge]:
    """Compare the models' logits. Raise ``ModelError`` naming the first pair that differs too much."""
    edges = compare_edges(answers, float(integers.logits.scale), kept_float=bool(integers.kept_float))
    broken = [edge for edge in edges if not edge.holds]
    if broken:
        edge = broken[0]
        raise ModelError(
            f"{edge.a} and {edge.b} differ in logits by {edge.measured:.3g}, allowed is {edge.limit:.3g}",
            hint=f"{len(edges) - len(broken)} of {len(edges)} comparisons hold",
        )
    return edges


def _write_certificates(
    made: Mapping[str, tuple[dict[str, Any], dict[str, Any]]],
    integers: IntegerModel,
    paths: Mapping[str, Path],
    specs: Mapping[str, ModelSpec],
) -> list[dict[str, Any]]:
    """Write the summaries into the INT8 files, then the certificates, which name the files' final hashes."""
    written = []
    for name, pair in made.items():
        spec = specs[name]
        certified = dataclasses.replace(spec, parity={**(spec.parity or {}), **parity_summary(*pair)})
        _write_int8(name, paths[name], integers, certified)
        for certificate in pair:
            final = with_sha256(certificate, "b", hash_file(paths[name]))
            write_certificate(final, paths[name].parent / "certificates")
            written.append(final)
    return written


def _write_int8(name: str, path: Path, integers: IntegerModel, spec: ModelSpec) -> None:
    if name == "ONNX INT8":
        onnx.save(build_int8_onnx(integers, spec), path)
    else:
        path.write_bytes(build_int8_tflite(integers, spec))


def _write_files(
    run: TrainedRun, integers: IntegerModel, paths: Mapping[str, Path], progress: _Progress
) -> dict[str, ModelSpec]:
    """Write the four files and return the ModelSpec in each."""
    tools = {tool: importlib.metadata.version(tool) for tool in _TOOLS}
    weak = {"weak": list(run.weak)} if run.weak else {}
    provenance = {**run.spec.provenance, "exported_with": tools, **weak}
    fp32 = dataclasses.replace(run.spec, provenance=provenance)
    serving = ServingModel(run.fp32, fp32)
    progress("writing FP32")
    onnx.save(build_fp32_onnx(serving, fp32), paths["ONNX FP32"])
    paths["TFLite FP32"].write_bytes(build_fp32_tflite(serving, fp32))
    progress("writing INT8")
    specs = {"ONNX FP32": fp32, "TFLite FP32": fp32}
    kept = {"kept_float": list(integers.kept_float)} if integers.kept_float else {}
    for name, twin in _TWINS.items():
        specs[name] = dataclasses.replace(
            fp32,
            precision="int8",
            saturation_safe=integers.saturation_safe,
            parity={**(run.spec.parity or {}), "fp32_sha256": hash_file(paths[twin])},
            provenance=provenance | kept,
        )
        _write_int8(name, paths[name], integers, specs[name])
    return specs
