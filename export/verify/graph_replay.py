"""Replay frames on every model of an export and compare the logits of each model with those it was made from.

    Keras FP32 -> ONNX FP32, TFLite FP32, Keras QAT
    Keras QAT -> ONNX INT8, TFLite INT8
    exact integers -> ONNX INT8, TFLite INT8
    TFLite INT8 <-> ONNX INT8

Each arrow is an ``Edge`` of this tree. A broken edge shows which conversion went wrong. Edges between FP32 models
differ only by the order of sums. The QAT model, the integers computed exactly (``int8.reference``) and the INT8 files
do the same arithmetic and gave equal bits on the CPUs tried. What quantisation costs (Keras FP32 -> Keras QAT) depends
on the data and has no limit here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from capsule_edge.runtime.errors import ModelError
from capsule_edge.runtime.inference import ModelSpec

from ..contract import FrameArray, Outputs, Runner
from ..runners import in_batches

if TYPE_CHECKING:
    from ..int8 import IntegerModel

__all__ = [
    "Edge",
    "check_outputs",
    "check_probabilities",
    "compare_edges",
    "compare_floats",
    "draw_tree",
    "replay",
]

_KERAS, _QAT, _EXACT, _TFLITE = "Keras FP32", "Keras QAT", "exact integers", "TFLite INT8"
_TREE = (
    (_KERAS, "ONNX FP32"),
    (_KERAS, "TFLite FP32"),
    (_KERAS, _QAT),
    (_QAT, "ONNX INT8"),
    (_QAT, _TFLITE),
    (_EXACT, "ONNX INT8"),
    (_EXACT, _TFLITE),
    (_TFLITE, "ONNX INT8"),
)
# Limit of FP32 edges, relative to the largest logit: sums of some 1e3 float32 products in another order. 7e-5 was seen
# in a model of 53 layers.
_FLOAT_LIMIT = 1e-3
# Limit of INT8 edges: the root mean square, in steps of the logits. 0 was seen on every edge (tests, 256 real frames).
# One flipped value in an early layer of an untrained net makes about one step in one frame of twenty.
_STEPS = 0.5
# The same with layers kept in float, whose sums may fall to either side of the middle between two steps. 0.8 was seen
# (an untrained MobileNetV2).
_FLOAT_STEPS = 3.0


@dataclass(frozen=True)
class Edge:
    """The difference between two models' logits on the replayed frames.

    Attributes:
        a: The name of the first model.
        b: The name of the model made from it.
        max_dlogit: The largest difference.
        rms_dlogit: The root mean square of the differences.
        agreement: The share of frames with the same most probable label.
        limit: The largest ``measured`` that is allowed; None where nothing is (Keras FP32 -> Keras QAT).
    """

    a: str
    b: str
    max_dlogit: float
    rms_dlogit: float
    agreement: float
    limit: float | None

    @property
    def measured(self) -> float:
        """The figure that ``limit`` bounds: the largest difference of an FP32 edge, the rms of an INT8 edge."""
        return self.max_dlogit if "FP32" in self.b else self.rms_dlogit

    @property
    def holds(self) -> bool:
        """True if the difference is within the limit."""
        return self.limit is None or self.measured <= self.limit


def replay(runners: Mapping[str, Runner], frames: FrameArray) -> dict[str, Outputs]:
    """Run every model on the frames, once in batches and for the first frame also alone.

    Args:
        runners: The models by name.
        frames: uint8 RGB (N, size, size, 3).

    Returns:
        The outputs of each model for all frames.

    Raises:
        ModelError: A model's logits of the first frame depend on the batch.
    """
    answers = {}
    for name, run in runners.items():
        answers[name] = in_batches(run, frames)
        alone, together = run(frames[:1])["logits"], answers[name]["logits"][:1]
        # The order of sums may differ, as above. An INT8 engine may choose another kernel but not another rounding.
        limit = _FLOAT_LIMIT * max(1.0, float(np.abs(together).max()))
        if not np.allclose(alone, together, rtol=0, atol=limit):
            raise ModelError(f"{name} gives a frame other logits alone than in a batch")
    return answers


def compare_edges(
    answers: Mapping[str, Outputs], logit_step: float, *, kept_float: bool = False
) -> list[Edge]:
    """Compare the logits along every edge of the tree.

    Args:
        answers: The outputs of each model (``replay``).
        logit_step: The scale of the INT8 logits.
        kept_float: Whether the INT8 files have layers in float, which widens their limit.
    """
    limit = (_FLOAT_STEPS if kept_float else _STEPS) * logit_step
    return [
        compare_floats(answers, a, b)
        if "FP32" in b
        else _compare(answers, a, b, None if b == _QAT else limit)
        for a, b in _TREE
    ]


def compare_floats(answers: Mapping[str, Outputs], a: str, b: str) -> Edge:
    """Compare the logits of two FP32 models.

    Args:
        answers: The outputs of each model (``replay``).
        a: The name of the first model.
        b: The name of the model made from it, with ``FP32`` in it.

    Returns:
        The edge, whose limit is that of float32 sums in another order.
    """
    size = float(np.abs(answers[a]["logits"]).max())
    return _compare(answers, a, b, _FLOAT_LIMIT * max(1.0, size))


def _compare(answers: Mapping[str, Outputs], a: str, b: str, limit: float | None) -> Edge:
    first, second = answers[a]["logits"].astype(np.float64), answers[b]["logits"].astype(np.float64)
    difference = np.abs(first - second)
    largest, rms = float(difference.max()), float(np.sqrt(np.mean(difference**2)))
    agreement = float(np.mean(first.argmax(axis=1) == second.argmax(axis=1)))
    return Edge(a, b, largest, rms, agreement, limit)


def draw_tree(edges: Sequence[Edge]) -> str:
    """Draw the edges as a tree of text, one line each. A broken edge is marked."""
    lines = [_KERAS]
    lines += [_edge_line(edge, "+- ") for edge in edges if edge.a == _KERAS]
    lines += [_edge_line(edge, "   +- ") for edge in edges if edge.a == _QAT]
    for root, prefix in ((_EXACT, "+- "), (_TFLITE, "<> ")):
        lines.append(root)
        lines += [_edge_line(edge, prefix) for edge in edges if edge.a == root]
    return "\n".join(lines)


def _edge_line(edge: Edge, prefix: str) -> str:
    limit = "" if edge.limit is None else f"  limit {edge.limit:.2g}"
    verdict = "" if edge.holds else "  BROKEN"
    return (
        f"{prefix + edge.b:20} max |dlogit| {edge.max_dlogit:8.2g}  rms {edge.rms_dlogit:8.2g}"
        f"  top-1 {edge.agreement:7.2%}{limit}{verdict}"
    )


def check_outputs(
    name: str,
    outputs: Outputs,
    spec: ModelSpec,
    bias: npt.NDArray[np.float32],
    integers: IntegerModel | None = None,
) -> None:
    """Check that the three outputs of a file fit each other.

    Probabilities must be the softmax of logits / temperature. The spatial mean of the features must be the logits
    less the bias: within 1e-4 in FP32, within the rounding of the mean and of the logits in INT8.

    Args:
        name: The name of the file, for errors.
        outputs: The file's outputs on some frames.
        spec: The file's ModelSpec.
        bias: The bias of the logits, float32 (labels,).
        integers: The integers of an INT8 file; None for an FP32 file.

    Raises:
        ModelError: The outputs do not fit each other.
    """
    check_probabilities(name, outputs, spec)
    difference = np.abs(outputs["features"].mean(axis=(1, 2)) - (outputs["logits"] - bias))
    limits = np.full(len(bias), 1e-4 * max(1.0, float(np.abs(outputs["logits"]).max())))
    if integers is not None:
        limits += rounding_bound(integers)
        # A frame unlike those of the calibration exceeds a layer's range and is clipped. No scale bounds that error,
        # so judge the median frame.
        difference = np.median(difference, axis=0)
    if np.any(difference > limits):
        worst = float((difference / limits).max())
        raise ModelError(
            f"{name}: the features' mean differs from logits - bias by {difference.max():.3g},"
            f" {worst:.2g} x the limit"
        )


def check_probabilities(name: str, outputs: Outputs, spec: ModelSpec) -> None:
    """Check that the probabilities of a file are the softmax of its logits / temperature.

    Args:
        name: The name of the file, for errors.
        outputs: The file's outputs on some frames.
        spec: The file's ModelSpec.

    Raises:
        ModelError: They are not.
    """
    logits = outputs["logits"].astype(np.float64) / spec.temperature
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    worst = np.abs(powers / powers.sum(axis=1, keepdims=True) - outputs["probabilities"]).max()
    # Some ten float32 roundings of values up to 1.
    if not worst <= 1e-5:
        raise ModelError(
            f"{name}: probabilities differ from softmax(logits / {spec.temperature:g}) by {worst:.3g}"
        )


def rounding_bound(integers: IntegerModel) -> npt.NDArray[np.float64]:
    """Return how far INT8 logits less their bias may lie from the features' mean: six standard deviations.

    Each pooled channel is rounded once and passes through its dense weight. The logits are rounded once too. The error
    of a rounding is spread evenly over a step, which has a standard deviation of step / sqrt(12). The errors of the
    channels are independent.

    Returns:
        float64 (labels,).
    """
    pooled = float(integers.nodes[-2].output.scale)
    through = (integers.classifier.astype(np.float64) ** 2).sum(axis=0)
    return np.asarray(6 * np.sqrt((pooled**2 * through + float(integers.logits.scale) ** 2) / 12), np.float64)
