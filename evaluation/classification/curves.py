"""Compute ROC and precision-recall curves, thinned to the points that a plot can show."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .predictions import Predictions

__all__ = ["ABNORMAL", "POINTS", "curves"]

ABNORMAL = "normal_vs_abnormal"
"""The name of the curves of any finding against none; the other curves have the names of their labels."""

POINTS = 101
"""The largest number of points of a curve."""


def curves(predictions: Predictions, abnormal: npt.NDArray[np.bool_]) -> dict[str, dict[str, Any]]:
    """Compute both curves of each label against the rest, and of any finding against none (``ABNORMAL``).

    Args:
        predictions: The answers for N frames over L labels.
        abnormal: bool (L,), which labels are findings.

    Returns:
        By name, ``roc`` with ``false_positive_rate`` and ``sensitivity``, and ``precision_recall`` with ``recall`` and
        ``precision``: at most ``POINTS`` values each, at thresholds that occur in the data. A label without a frame,
        or without a frame of another label, is left out.
    """
    from sklearn.metrics import precision_recall_curve, roc_curve

    truths = {key: predictions.labels == i for i, key in enumerate(predictions.keys)}
    scores = {key: predictions.probabilities[:, i] for i, key in enumerate(predictions.keys)}
    truths[ABNORMAL] = abnormal[predictions.labels]
    scores[ABNORMAL] = predictions.probabilities[:, abnormal].sum(axis=1)
    found = {}
    for key, truth in truths.items():
        if truth.all() or not truth.any():
            continue
        false, hit, _ = roc_curve(truth, scores[key])
        precision, recall, _ = precision_recall_curve(truth, scores[key], drop_intermediate=True)
        found[key] = {
            "roc": _thinned("false_positive_rate", false, "sensitivity", hit),
            "precision_recall": _thinned("recall", recall[::-1], "precision", precision[::-1]),
        }
    return found


def _thinned(
    across: str, x: npt.NDArray[np.float64], up: str, y: npt.NDArray[np.float64]
) -> dict[str, list[float]]:
    """Keep the first and the last point, and between them those nearest to even steps along the curve."""
    if len(x) > POINTS:
        way = np.r_[0, np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y)))]
        steps = np.searchsorted(way, np.linspace(0, way[-1], POINTS))
        kept = np.unique(np.r_[0, np.minimum(steps, len(x) - 1), len(x) - 1])[-POINTS:]
        x, y = x[kept], y[kept]
    return {across: [round(float(v), 5) for v in x], up: [round(float(v), 5) for v in y]}
