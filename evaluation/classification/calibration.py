"""Probabilities that mean what they say: temperature, calibration error, thresholds."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from capsule_edge.runtime.errors import InputError
from capsule_edge.runtime.inference import OperatingPoint

__all__ = ["ece", "fit_temperature", "operating_points", "reliability"]

Floats = npt.NDArray[np.floating[Any]]
Indices = npt.NDArray[np.intp]

BINS = 15
_LOWEST, _HIGHEST = 0.05, 20.0
_GOLDEN = (math.sqrt(5) - 1) / 2


def fit_temperature(logits: Floats, labels: Indices) -> float:
    """The temperature in 0.05..20 that minimises the negative log-likelihood of ``softmax(logits / T)``.

    ``logits`` are (N, L), uncalibrated; ``labels`` intp (N,). The likelihood is convex in 1/T, so a
    golden-section search over log T finds its one minimum. Logits that separate every frame, or none, end
    at a bound. Guo et al., "On Calibration of Modern Neural Networks", ICML 2017. Raises ``InputError`` for
    no frames, shapes that do not fit or logits that are not finite.
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


def reliability(probabilities: Floats, labels: Indices, *, bins: int = BINS) -> list[dict[str, float | int]]:
    """Top-label confidence against accuracy in equal-width bins: ``low, high, frames, confidence, accuracy``.

    Empty bins are left out. ``probabilities`` are (N, L) in 0..1.
    """
    probabilities, labels = np.asarray(probabilities, np.float64), np.asarray(labels, np.intp)
    _check(probabilities, labels)
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == labels
    # Bins are half-open on the left, as in the paper: (m-1)/M < confidence <= m/M.
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
    """Expected calibration error, 0..1: |accuracy - confidence| of the top label over 15 equal-width bins.

    Guo et al., ICML 2017, after Naeini et al., AAAI 2015.
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
    """For each label the threshold of the best F1 among those with a specificity of at least
    ``min_specificity``.

    F1 and not Youden's index: a recording holds tens of thousands of frames, most of them normal, and
    Youden's index weighs a percent of specificity (hundreds of false frames) like a percent of sensitivity
    (often none). A threshold lies midway between two answers, so that the rounding of another precision
    moves no frame across it. Where no threshold is that specific the most specific one is taken.

    ``min_threshold`` is the least probability that counts: .5 is what the model holds more likely than all else
    together. ``only`` restricts the labels (the findings, say). A label without a frame, or without a frame of
    another label, gets 0.5 and None for what was measured.
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
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    # Seen is p >= threshold: a cut may only lie after the last of equal scores.
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
            f"values are {values.shape} and labels {labels.shape}, needed are (N, L) and (N,), N > 0"
        )
    if not np.isfinite(values).all():
        raise InputError("values hold numbers that are not finite")
    if labels.min() < 0 or labels.max() >= values.shape[1]:
        raise InputError(f"labels lie in {labels.min()}..{labels.max()}, allowed is 0..{values.shape[1] - 1}")
