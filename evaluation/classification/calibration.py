"""Calibrate probabilities: fit the temperature, measure the calibration error, choose thresholds."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from capsule_edge.runtime.errors import InputError
from capsule_edge.runtime.inference import OperatingPoint

__all__ = [
    "READER_SPECIFICITY",
    "READER_THRESHOLD",
    "ece",
    "fit_temperature",
    "is_at_bound",
    "operating_points",
    "reliability",
]

Floats = npt.NDArray[np.floating[Any]]
Indices = npt.NDArray[np.intp]

# A recording is almost all normal. One false frame in a hundred is as many as a reader bears, and no label is shown
# that the calibrated model does not hold more likely than all others together.
READER_SPECIFICITY, READER_THRESHOLD = 0.99, 0.5

BINS = 15
_LOWEST, _HIGHEST = 0.05, 20.0
_GOLDEN = (math.sqrt(5) - 1) / 2


def fit_temperature(logits: Floats, labels: Indices) -> float:
    """Find the temperature T that minimises the negative log-likelihood of ``softmax(logits / T)``.

    The likelihood is convex in 1/T, so a golden-section search over log T finds its only minimum. If the logits
    separate every frame, or none, the search ends at a bound. Source: Guo et al., "On Calibration of Modern Neural
    Networks", ICML 2017.

    Args:
        logits: float (N, L), uncalibrated.
        labels: intp (N,) in 0..L-1, the true labels.

    Returns:
        The temperature, 0.05..20.

    Raises:
        InputError: There are no frames, the shapes do not fit, or a logit is not finite.
    """
    logits, labels = np.asarray(logits, np.float64), np.asarray(labels, np.intp)
    _check(logits, labels)

    def loss(log_t: float) -> float:
        scaled = logits / math.exp(log_t)
        scaled -= scaled.max(axis=1, keepdims=True)
        chosen = scaled[np.arange(len(labels)), labels]
        return float(np.mean(np.log(np.exp(scaled).sum(axis=1)) - chosen))

    low, high = math.log(_LOWEST), math.log(_HIGHEST)
    # 50 steps shrink the interval of log T from 6 to 2e-10.
    for _ in range(50):
        left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        if loss(left) <= loss(right):
            high = right
        else:
            low = left
    return math.exp((low + high) / 2)


def is_at_bound(temperature: float) -> bool:
    """Return whether ``fit_temperature`` ended at a bound of its search."""
    return not _LOWEST * (1 + 1e-6) < temperature < _HIGHEST * (1 - 1e-6)


def reliability(probabilities: Floats, labels: Indices, *, bins: int = BINS) -> list[dict[str, float | int]]:
    """Compare the confidence in the top label with its accuracy, in bins of equal width.

    Args:
        probabilities: float (N, L) in 0..1.
        labels: intp (N,) in 0..L-1, the true labels.
        bins: The number of bins.

    Returns:
        ``low``, ``high``, ``frames``, ``confidence`` and ``accuracy`` of each bin that is not empty.

    Raises:
        InputError: There are no frames, the shapes do not fit, or a probability is not finite.
    """
    probabilities, labels = np.asarray(probabilities, np.float64), np.asarray(labels, np.intp)
    _check(probabilities, labels)
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == labels
    # Bins are open on the left, as in the paper: (m-1)/M < confidence <= m/M.
    at = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    return [
        {
            "low": b / bins,
            "high": (b + 1) / bins,
            "frames": int((at == b).sum()),
            "confidence": float(confidence[at == b].mean()),
            "accuracy": float(correct[at == b].mean()),
        }
        for b in np.unique(at).tolist()
    ]


def ece(probabilities: Floats, labels: Indices, *, bins: int = BINS) -> float:
    """Return the expected calibration error, 0..1.

    It is the mean of |accuracy - confidence| over the bins of ``reliability``, weighted by their frames.

    Source: Guo et al., ICML 2017, after Naeini et al., AAAI 2015.
    """
    rows = reliability(probabilities, labels, bins=bins)
    return sum(row["frames"] * abs(row["accuracy"] - row["confidence"]) for row in rows) / len(labels)


def operating_points(
    probabilities: Floats,
    labels: Indices,
    keys: Sequence[str],
    *,
    only: Collection[str] | None = None,
    min_specificity: float = 0.95,
    min_threshold: float = 0.0,
    measured_on: str | None = None,
    provisional: bool = True,
) -> dict[str, OperatingPoint]:
    """Choose for each label the threshold with the best F1 among those with enough specificity.

    F1 is used and not Youden's index. A recording holds tens of thousands of frames, most of them normal. Youden's
    index gives a percent of specificity (hundreds of false frames) the weight of a percent of sensitivity (often no
    frame). A threshold lies midway between two answers, so that the rounding of another precision moves no frame
    across it.

    Args:
        probabilities: float (N, L) in 0..1.
        labels: intp (N,) in 0..L-1, the true labels.
        keys: The label keys.
        only: Choose thresholds for these labels alone, such as the findings; None: for all.
        min_specificity: The least specificity. If no threshold reaches it, the most specific one is chosen.
        min_threshold: The least threshold. With .5 the model must hold the label more likely than all others together.
        measured_on: What the frames are, for the operating point.
        provisional: Mark the operating points as provisional.

    Returns:
        The operating points by label key. A label without a frame, or without a frame of another label, gets the
        threshold 0.5 and no measured sensitivity or specificity.

    Raises:
        InputError: There are no frames, the shapes do not fit, or a probability is not finite.
    """
    probabilities, labels = np.asarray(probabilities, np.float64), np.asarray(labels, np.intp)
    _check(probabilities, labels)
    points = {}
    for column, key in enumerate(keys):
        if only is not None and key not in only:
            continue
        positive = labels == column
        if not positive.any() or positive.all():
            points[key] = OperatingPoint(0.5, measured_on=measured_on, provisional=provisional)
            continue
        threshold, sensitivity, specificity = _best(
            probabilities[:, column], positive, min_specificity, min_threshold
        )
        points[key] = OperatingPoint(threshold, sensitivity, specificity, measured_on, provisional)
    return points


def _best(
    scores: Floats, positive: npt.NDArray[np.bool_], min_specificity: float, min_threshold: float
) -> tuple[float, float, float]:
    """Return threshold, sensitivity and specificity of one label."""
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    # A frame counts if p >= threshold, so a threshold may only lie below the last of equal scores.
    last = np.flatnonzero(np.r_[ranked[1:] != ranked[:-1], True])
    hits = np.cumsum(positive[order])[last].astype(np.float64)
    false = (last + 1) - hits
    sensitivity = hits / positive.sum()
    specificity = 1 - false / (~positive).sum()
    f1 = 2 * hits / (hits + false + positive.sum())
    allowed = specificity >= min_specificity
    if not allowed.any():
        allowed = specificity == specificity.max()
    best = int(np.argmax(np.where(allowed, f1, -1.0)))
    below = ranked[last[best] + 1] if last[best] + 1 < len(ranked) else 0.0
    threshold = (ranked[last[best]] + below) / 2
    if threshold < min_threshold:
        seen = scores >= min_threshold
        return min_threshold, float(seen[positive].mean()), float(1 - seen[~positive].mean())
    return float(threshold), float(sensitivity[best]), float(specificity[best])


def _check(values: Floats, labels: Indices) -> None:
    if values.ndim != 2 or not len(values) or labels.shape != (len(values),):
        raise InputError(
            f"values have the shape {values.shape} and labels {labels.shape}, needed are (N, L) and (N,) with N > 0"
        )
    if not np.isfinite(values).all():
        raise InputError("some values are not finite")
    if labels.min() < 0 or labels.max() >= values.shape[1]:
        raise InputError(
            f"labels range from {labels.min()} to {labels.max()}, allowed is 0 to {values.shape[1] - 1}"
        )
