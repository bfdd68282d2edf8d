"""Write the TFLite file of an adoption, compare it with the FP32 ONNX file, and certify it against the source.

A source that TFLite cannot hold is no fault of the adoption: its ONNX files stand, and the reason is reported.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from capsule_edge.evaluation.classification import Predictions, predict
from capsule_edge.evaluation.datasets import Dataset
from capsule_edge.evaluation.parity import parity_summary, with_sha256, write_certificate
from capsule_edge.runtime.errors import CapsuleEdgeError, ModelError
from capsule_edge.runtime.inference import Backend, ModelSpec

from ..contract import FrameArray, Outputs
from ..new_folder import hash_file
from ..runners import file_runner, open_file
from ..verify import Edge, check_outputs, check_probabilities, compare_floats, replay
from .adopted_files import certify_conversion
from .facts import OutputKind, SourceFacts
from .scaling import Scaling

__all__ = ["TFLITE", "TfliteReport", "write_tflite"]

TFLITE = "model.fp32.tflite"
_ONNX, _OURS = "ONNX FP32", "TFLite FP32"
# What an engine's sums in another order may change in a map, relative to its largest value, as for logits.
_MAP_LIMIT = 1e-3


@dataclass(frozen=True)
class TfliteReport:
    """The TFLite file of an adoption, or the reason why there is none.

    Attributes:
        file: The name of the file; None if there is none.
        reason: Why there is none; None if there is one.
        has_maps: Whether the file has activation maps.
        edge: The comparison of its logits with those of the FP32 ONNX file; None if there is no file.
        frames: The number of frames of this comparison.
        certificate: The conversion certificate, as a JSON-ready document; None if there is no file.
    """

    file: str | None = None
    reason: str | None = None
    has_maps: bool = False
    edge: Edge | None = None
    frames: int = 0
    certificate: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the report, less the certificate, as a JSON-ready document."""
        edge = None if self.edge is None else dataclasses.asdict(self.edge) | {"holds": self.edge.holds}
        return {
            "file": self.file,
            "reason": self.reason,
            "has_maps": self.has_maps,
            "frames": self.frames,
            "edge": edge,
        }


def write_tflite(
    fp32: Path,
    facts: SourceFacts,
    scaling: Scaling,
    outputs: OutputKind,
    pixels: FrameArray,
    expected: Predictions,
    dataset: Dataset,
    *,
    progress: Callable[[str], None] = lambda _: None,
) -> TfliteReport:
    """Write the FP32 TFLite file of an adopted model and its conversion certificate, beside the FP32 ONNX file.

    The logits may differ from those of the ONNX file as far as ``export`` allows it between its own FP32 files.

    Args:
        fp32: The FP32 ONNX file, finished.
        facts: The source.
        scaling: The scaling of its input.
        outputs: The meaning of its output.
        pixels: The frames on which both files are compared, uint8 RGB (N, size, size, 3).
        expected: The source's answers to ``dataset``.
        dataset: The labelled frames of the certificate.
        progress: Called with each line of progress.

    Returns:
        The report. If the source cannot be converted or a check fails, it has the reason, and no file is left.
    """
    if facts.tflite is None:
        return TfliteReport(reason="the source is an ONNX file, which adopt does not convert to TFLite")
    path = fp32.with_name(TFLITE)
    try:
        return _write(path, fp32, facts, scaling, outputs, pixels, expected, dataset, progress)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # converters and engines raise exceptions without a common base class
        path.unlink(missing_ok=True)
        message = error.message if isinstance(error, CapsuleEdgeError) else str(error) or type(error).__name__
        return TfliteReport(reason=" ".join(message.split())[:300])


def _write(
    path: Path, fp32: Path, facts: SourceFacts, scaling: Scaling, outputs: OutputKind, pixels: FrameArray,
    expected: Predictions, dataset: Dataset, progress: Callable[[str], None],
) -> TfliteReport:  # fmt: skip
    from .serving_tflite import build_tflite

    assert facts.tflite is not None
    progress("writing TFLite")
    network, layout = facts.tflite(), facts.layout or "nhwc"
    onnx_file = open_file(fp32)
    spec = _describe(onnx_file.spec, facts)
    path.write_bytes(build_tflite(network, scaling, layout, outputs, spec))
    model = open_file(path)
    edge = _compare(onnx_file, model, pixels)
    onnx_file.close()
    progress(f"certifying {path.name} on {len(dataset.samples):,} frames")
    certificate = certify_conversion(model, predict(model, dataset), expected, dataset)
    model.close()
    spec = dataclasses.replace(spec, parity=parity_summary(certificate))
    path.write_bytes(build_tflite(network, scaling, layout, outputs, spec))
    certificate = with_sha256(certificate, "b", hash_file(path))
    write_certificate(certificate, path.parent / "certificates")
    return TfliteReport(path.name, None, model.spec.has_maps, edge, len(pixels), certificate)


def _describe(spec: ModelSpec, facts: SourceFacts) -> ModelSpec:
    """Return the ModelSpec of the TFLite file: that of the FP32 ONNX file without what belongs to ONNX."""
    source = {
        key: value
        for key, value in spec.provenance["adopted_from"].items()
        if key not in ("converted", "conversion")
    }
    tools = ("capsule-edge", "ai-edge-litert", *(() if facts.kind == "tflite" else ("tensorflow",)))
    versions = {tool: importlib.metadata.version(tool) for tool in tools}
    provenance = {**spec.provenance, "adopted_from": source, "exported_with": versions}
    return dataclasses.replace(spec, provenance=provenance, parity=None)


def _compare(onnx_file: Backend, model: Backend, pixels: FrameArray) -> Edge:
    """Compare both files on real frames, alone and in batches. Raise ``ModelError`` if they differ too much."""
    answers = replay({_ONNX: file_runner(onnx_file), _OURS: file_runner(model)}, pixels)
    edge = compare_floats(answers, _ONNX, _OURS)
    if not edge.holds:
        raise ModelError(
            f"{model.path.name} and {onnx_file.path.name} differ in logits by {edge.measured:.3g} on {len(pixels)}"
            f" frames, allowed is {edge.limit:.3g}"
        )
    ours = answers[_OURS]
    if model.spec.has_maps:
        _compare_maps(model, answers[_ONNX], ours)
    else:
        check_probabilities(model.path.name, ours, model.spec)
    return edge


def _compare_maps(model: Backend, theirs: Outputs, ours: Outputs) -> None:
    # The bias is one number for all frames.
    bias = (theirs["logits"] - theirs["features"].mean(axis=(1, 2)))[0]
    check_outputs(model.path.name, ours, model.spec, bias)
    size = max(1.0, float(np.abs(theirs["features"]).max()))
    worst = float(np.abs(theirs["features"] - ours["features"]).max())
    if not worst <= _MAP_LIMIT * size:
        raise ModelError(
            f"the features of {model.path.name} differ from those of the ONNX file by {worst:.3g}, allowed is"
            f" {_MAP_LIMIT * size:.3g}"
        )
