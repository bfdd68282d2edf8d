"""Replays frames on every file of an export and compares the answers along the tree of their making.

    Keras FP32 -> ONNX FP32, TFLite FP32, Keras QAT -> ONNX INT8, TFLite INT8; ONNX INT8 <-> TFLite INT8

so that the edge that breaks is seen. FP32 edges differ by the order of sums alone. The INT8 files, the QAT model
and the integers computed exactly (``reference``) do the same arithmetic and agree to the bit on the CPUs tried. What
quantisation costs (Keras FP32 -> Keras QAT) is a matter of data and is not bound here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from capsule_edge.runtime.errors import ModelError
from capsule_edge.runtime.inference import ModelSpec

from ..int8 import IntegerModel
from ..runners import Frames, Outputs, Runner, in_batches

__all__ = ["Edge", "check_outputs", "compare_edges", "draw_tree", "replay"]

_KERAS, _QAT, _EXACT = "Keras FP32", "Keras QAT", "exact integers"
_TREE = (
    (_KERAS, "ONNX FP32"),
    (_KERAS, "TFLite FP32"),
    (_KERAS, _QAT),
    (_QAT, "ONNX INT8"),
    (_QAT, "TFLite INT8"),
    (_EXACT, "ONNX INT8"),
    (_EXACT, "TFLite INT8"),
    ("TFLite INT8", "ONNX INT8"),
)
# Sums of some 1e3 float32 products in another order, relative to the largest logit; 53 layers deep, 7e-5 was
# seen.
_FLOAT_LIMIT = 1e-3
# Root mean square, in steps of the logits: 0 was seen on every edge (tests, 256 real frames). A single flipped
# value in an early layer of an untrained net makes about one step in one frame of twenty.
_STEPS = 0.5
# With layers kept in float, whose sums may fall to either side of a middle: .8 was seen (an untrained MobileNetV2).
_REAL_STEPS = 3.0


@dataclass(frozen=True)
class Edge:
    """How two models' logits differ over the frames: largest, root mean square, share of equal top-1 answers.

    ``limit`` bounds ``measured``, which is the largest difference of an FP32 edge and the root mean square
    of an INT8 one. None where nothing is bound: what QAT costs is a matter of data.
    """

    a: str
    b: str
    max_dlogit: float
    rms_dlogit: float
    agreement: float
    limit: float | None

    @property
    def measured(self) -> float:
        return self.max_dlogit if "FP32" in self.b else self.rms_dlogit

    @property
    def holds(self) -> bool:
        return self.limit is None or self.measured <= self.limit


def replay(runners: Mapping[str, Runner], frames: Frames) -> dict[str, Outputs]:
    """Each model's outputs on the frames, uint8 (N, s, s, 3); files run with several batch sizes, which must
    agree.

    Raises ``ModelError`` when a model answers a frame differently alone than in a batch.
    """
    answers = {}
    for name, run in runners.items():
        answers[name] = in_batches(run, frames)
        alone, together = run(frames[:1])["logits"], answers[name]["logits"][:1]
        # The same sums in another order, as above; an INT8 engine may choose another kernel but not another
        # rounding.
        if not np.allclose(
            alone, together, rtol=0, atol=_FLOAT_LIMIT * max(1.0, float(np.abs(together).max()))
        ):
            raise ModelError(f"{name} answers a frame differently alone and in a batch")
    return answers


def compare_edges(
    answers: Mapping[str, Outputs], logit_step: float, *, kept_float: bool = False
) -> list[Edge]:
    """Every edge of the tree; ``logit_step`` is the scale of the INT8 logits, ``kept_float`` whether layers are."""
    edges: list[Edge] = []
    for a, b in _TREE:
        first, second = answers[a]["logits"].astype(np.float64), answers[b]["logits"].astype(np.float64)
        difference = np.abs(first - second)
        largest, rms = float(difference.max()), float(np.sqrt(np.mean(difference**2)))
        agreement = float(np.mean(first.argmax(axis=1) == second.argmax(axis=1)))
        limit = (_REAL_STEPS if kept_float else _STEPS) * logit_step
        if "FP32" in b:
            limit = _FLOAT_LIMIT * max(1.0, float(np.abs(first).max()))
        bound = None if b == _QAT else limit
        edges.append(Edge(a, b, largest, rms, agreement, bound))
    return edges


def draw_tree(edges: Sequence[Edge]) -> str:
    """The edges as a tree of text, one line each, a broken one marked."""
    lines = [_KERAS]

    def draw(edge: Edge, prefix: str) -> None:
        limit = "" if edge.limit is None else f"  limit {edge.limit:.2g}"
        verdict = "" if edge.holds else "  BROKEN"
        lines.append(
            f"{prefix + edge.b:20} max |dlogit| {edge.max_dlogit:8.2g}  rms {edge.rms_dlogit:8.2g}"
            f"  top-1 {edge.agreement:7.2%}{limit}{verdict}"
        )

    for edge in edges:
        if edge.a == _KERAS:
            draw(edge, "+- ")
    for edge in edges:
        if edge.a == _QAT:
            draw(edge, "   +- ")
    lines.append(_EXACT)
    for edge in edges:
        if edge.a == _EXACT:
            draw(edge, "+- ")
    lines.append("TFLite INT8")
    for edge in edges:
        if edge.a == "TFLite INT8":
            draw(edge, "<> ")
    return "\n".join(lines)


def check_outputs(
    name: str,
    outputs: Outputs,
    spec: ModelSpec,
    bias: npt.NDArray[np.float32],
    integers: IntegerModel | None = None,
) -> None:
    """Check what a file's outputs promise about each other; ``integers`` is given for an INT8 file.

    Probabilities are the softmax of logits / temperature; features average to the logits less the bias, in
    FP32 within 1e-4, in INT8 within what rounding the mean and the logits can do. Raises ``ModelError``.
    """
    logits = outputs["logits"].astype(np.float64) / spec.temperature
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    worst = np.abs(powers / powers.sum(axis=1, keepdims=True) - outputs["probabilities"]).max()
    # Some ten float32 roundings of values up to 1.
    if not worst <= 1e-5:
        raise ModelError(
            f"{name}: probabilities are off softmax(logits / {spec.temperature:g}) by {worst:.3g}"
        )
    off = np.abs(outputs["features"].mean(axis=(1, 2)) - (outputs["logits"] - bias))
    limits = np.full(len(bias), 1e-4 * max(1.0, float(np.abs(outputs["logits"]).max())))
    if integers is not None:
        limits += rounding_bound(integers)
        # A frame unlike those of the calibration passes the end of a range and is clipped there, which no
        # scale bounds.
        off = np.median(off, axis=0)
    if np.any(off > limits):
        worst = float((off / limits).max())
        raise ModelError(
            f"{name}: the features' mean is off logits - bias by {off.max():.3g}, {worst:.2g} x the limit"
        )


def rounding_bound(integers: IntegerModel) -> npt.NDArray[np.float64]:
    """How far INT8 logits less their bias lie from the features' mean, (labels,): six standard deviations.

    Each pooled channel is rounded once, and passes through its dense weight, and so are the logits; a
    rounding's error is spread evenly over a step, which has a standard deviation of step / sqrt(12), and
    those of the channels are independent.
    """
    pooled = float(integers.nodes[-2].output.scale)
    through = (integers.classifier.astype(np.float64) ** 2).sum(axis=0)
    return np.asarray(6 * np.sqrt((pooled**2 * through + float(integers.logits.scale) ** 2) / 12), np.float64)
