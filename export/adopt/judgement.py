"""Judge the source's answers to labelled frames: the scaling that the data favour, and whether it only guesses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from capsule_edge.runtime.errors import ModelError

from ..contract import FrameArray
from .facts import Channels, Floats, OutputKind, SourceFacts
from .float_body import LEAST, LEAST_REST
from .onnx_source import OnnxSource
from .scaling import ORDERS, USUAL, Scaling, parse_scaling

__all__ = [
    "MOST_DP",
    "answer_frames",
    "balanced_accuracy",
    "check_answers",
    "compare_scalings",
    "largest_difference",
    "source_answers",
    "source_logits",
    "to_logits",
    "to_probabilities",
]

MOST_DP = 1e-3
"""Largest difference of a probability between a source and a copy of it: sums of float32 in another order."""

_BATCH = 16
# This close to 1 a sigmoid in float32, whose steps there are 2**-24, holds its logit to 6e-5 or worse; two programs may
# round differently by some of these steps.
_SURE, _SAME = 1e-3, 2.0**-22
# Standard errors by which balanced accuracy must exceed that of guessing.
_ERRORS = 2.0


def answer_frames(source: OnnxSource, scaling: Scaling, frames: FrameArray) -> Floats:
    """Return the source's outputs for uint8 RGB frames (N, size, size, 3), float32 (N, classes)."""
    run = source.runner()
    batches = [frames[at : at + _BATCH] for at in range(0, len(frames), _BATCH)]
    return np.concatenate([run(scaling.apply(batch, source.layout)) for batch in batches])


def source_answers(
    source: OnnxSource, facts: SourceFacts, scaling: Scaling
) -> Callable[[FrameArray], Floats]:
    """Return a function from frames to the source's outputs, computed by its own framework where it has one.

    So a fault of a converter shows too. Frames and outputs are those of ``answer_frames``.
    """
    run, layout = facts.run or source.runner(), facts.layout or source.layout

    def answer(frames: FrameArray) -> Floats:
        batches = [frames[at : at + _BATCH] for at in range(0, len(frames), _BATCH)]
        return np.concatenate([run(scaling.apply(batch, layout)) for batch in batches])

    return answer


def to_logits(answers: Floats, outputs: OutputKind) -> npt.NDArray[np.float64]:
    """Return the logits behind a source's outputs, float64 (N, classes).

    A single output answers for the second of two labels, whose logits are then 0 and its own.
    """
    return _for_two(_read_logits(answers, outputs))


def _read_logits(answers: Floats, outputs: OutputKind) -> npt.NDArray[np.float64]:
    values = np.asarray(answers, np.float64)
    if outputs == "logits":
        return values
    positive = np.log(np.maximum(values, LEAST))
    return positive if outputs == "probabilities" else positive - np.log(np.maximum(1 - values, LEAST_REST))


def _for_two(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the logits of both labels where there is only that of the second; other logits as they are."""
    return np.pad(logits, [(0, 0), (1, 0)]) if logits.shape[1] == 1 else logits


def source_logits(
    answers: Floats, outputs: OutputKind, ours: npt.NDArray[np.floating[Any]]
) -> npt.NDArray[np.float64]:
    """Return the logits behind a source's outputs, for comparison with those of the network made from it.

    Near 1 a sigmoid in float32 keeps few digits of its logit, or none, and some engines cut it near 0 too. There the
    network's own logit stands for the source's, if its sigmoid is the same number.

    Args:
        answers: The source's outputs, float32 (N, outputs).
        outputs: The meaning of these outputs.
        ours: The network's logits, (N, labels).

    Returns:
        float64 (N, labels).
    """
    logits = _read_logits(answers, outputs)
    if outputs != "sigmoid":
        return _for_two(logits)
    values = np.asarray(ours, np.float64)
    if answers.shape[1] == 1:
        values = values[:, 1:] - values[:, :1]
    same = np.abs(1 / (1 + np.exp(-np.maximum(values, -700))) - answers) <= _SAME
    hidden = same & (np.minimum(answers, 1 - answers) <= _SURE)
    return _for_two(np.where(hidden, values, logits))


def to_probabilities(logits: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float64]:
    """Return the softmax of logits (N, classes), float64."""
    values = np.asarray(logits, np.float64)
    powers = np.exp(values - values.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def largest_difference(ours: npt.NDArray[np.floating[Any]], theirs: npt.NDArray[np.floating[Any]]) -> float:
    """Return the largest difference of a probability between two sets of logits (N, classes)."""
    return float(np.abs(to_probabilities(ours) - to_probabilities(theirs)).max())


def balanced_accuracy(answers: npt.NDArray[np.floating[Any]], labels: npt.NDArray[np.intp]) -> float:
    """Return the mean share of each label's frames that the answers get right, over the labels that occur."""
    right = answers.argmax(axis=1) == labels
    return float(np.mean([right[labels == label].mean() for label in np.unique(labels)]))


def compare_scalings(
    source: OnnxSource,
    frames: FrameArray,
    labels: npt.NDArray[np.intp],
    outputs: OutputKind,
    *,
    scaling: str | None = None,
    channels: Channels | None = None,
) -> dict[str, float]:
    """Return the balanced accuracy with each usual scaling and order of colours, the highest first.

    Args:
        source: The classifier.
        frames: uint8 RGB (N, size, size, 3).
        labels: Their true labels, int (N,).
        outputs: The meaning of the outputs.
        scaling: The scaling if it is known, and only the order of the colours is not.
        channels: The order of the colours if it is known.
    """
    figures: dict[str, float] = {}
    orders: Sequence[Channels] = (channels,) if channels else ("rgb", "bgr")
    for name in (scaling,) if scaling else USUAL:
        for order in orders if channels or name not in ORDERS else (ORDERS[name],):
            parsed = parse_scaling(name, order)
            if parsed is not None:
                answers = answer_frames(source, parsed, frames)
                finite = bool(np.isfinite(answers).all())
                logits = to_logits(answers, outputs) if source.is_single else answers
                figures[str(parsed)] = balanced_accuracy(logits, labels) if finite else 0.0
    return dict(sorted(figures.items(), key=lambda item: -item[1]))


def describe_figures(figures: Mapping[str, float]) -> str:
    """Return the figures of ``compare_scalings`` in one line."""
    return "; ".join(f"{name}: {value:.3f}" for name, value in figures.items())


def check_answers(
    answers: Floats, logits: Floats, labels: npt.NDArray[np.intp], outputs: OutputKind, scaling: Scaling, *,
    accept_weak: bool, asks: bool,
) -> None:  # fmt: skip
    """Check that a source's answers are what ``outputs`` says, differ between frames, and are better than guessing.

    Args:
        answers: The source's outputs, float32 (N, outputs).
        logits: The network's logits for the same frames. A sigmoid or softmax that is sure rounds to 1, and then
            answers of several labels and frames are equal whose logits differ.
        labels: The true labels of the frames, int (N,).
        outputs: The meaning of the outputs.
        scaling: The scaling of the frames, for messages.
        accept_weak: Accept answers that are no better than guessing.
        asks: Whether the usual scalings would be compared if ``--scaling`` were left out.

    Raises:
        ModelError: One of these is not so.
    """
    if not np.isfinite(answers).all():
        raise ModelError(f"with the scaling {scaling} the model answers with values that are not finite")
    sums = answers.sum(axis=1)
    within = answers.min() >= -1e-4 and answers.max() <= 1 + 1e-4
    if outputs != "logits" and not within:
        raise ModelError(
            f"the outputs range from {answers.min():.3g} to {answers.max():.3g}, {outputs} lie between 0 and 1",
            hint="--outputs logits",
        )
    if outputs == "probabilities" and not np.allclose(sums, 1, atol=1e-2):
        raise ModelError(
            f"the outputs of a frame sum to {sums.min():.3g} to {sums.max():.3g}, probabilities sum to 1",
            hint="--outputs sigmoid, if each label has a probability of its own",
        )
    if float(logits.std(axis=0).max()) < 1e-5 * max(1.0, float(np.abs(logits).max())):
        raise ModelError(
            f"with the scaling {scaling} the model answers all {len(answers)} frames alike",
            hint="give the scaling and the colours that the model was trained with: --scaling, --channels",
        )
    _check_better_than_guessing(logits, labels, scaling, accept_weak, asks)


def _check_better_than_guessing(
    logits: Floats, labels: npt.NDArray[np.intp], scaling: Scaling, accept_weak: bool, asks: bool
) -> None:
    counts = np.bincount(labels)
    counts = counts[counts > 0]
    if len(counts) < 2:
        raise ModelError(
            f"all {len(labels)} frames have one label, two or more are needed to judge and calibrate the model"
        )
    chance = 1 / len(counts)
    error = float(np.sqrt((chance * (1 - chance) / counts).sum())) / len(counts)
    reached = balanced_accuracy(logits, labels)
    if reached <= chance + _ERRORS * error and not accept_weak:
        raise ModelError(
            f"balanced accuracy on {len(labels)} frames is {reached:.3f} with the scaling {scaling}; guessing among"
            f" {len(counts)} labels gives {chance:.3f}, needed is more than {chance + _ERRORS * error:.3f}",
            hint="check the order of --labels, --scaling and --channels; "
            + ("without --scaling you are shown what each usual one reaches; " if asks else "")
            + "--accept-weak adopts the model all the same",
        )
