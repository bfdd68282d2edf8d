"""Measure a model on labelled frames: scikit-learn computes the figures, a bootstrap over videos the intervals.

An undefined figure is None: the AUC of a class without a frame, the precision of a class that was never predicted, the
Matthews correlation of constant predictions. Macro averages are over the classes that have a frame (listed in
``averaged_over``) and for which the figure is defined.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .._extras import require
from .bootstrap import (
    LEVEL,
    interval,
    mean_defined,
    rates,
    resample_videos,
    resampled_figures,
    weighted_auc,
    weighted_average_precision,
    weighted_sensitivity,
    why_no_intervals,
)
from .calibration import ece, reliability
from .curves import curves
from .predictions import Predictions

__all__ = ["evaluate", "one_vs_rest_auc"]

SPECIFICITIES = (0.90, 0.95)


def evaluate(
    predictions: Predictions,
    *,
    findings: Collection[str] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Compute all figures of a set of predictions.

    Args:
        predictions: The answers for the labelled frames.
        findings: The label keys that count as abnormal; None: all but ``normal``. A frame's score of being abnormal
            is the sum of their probabilities.
        resamples: The number of bootstrap resamples; 0 leaves the intervals out.
        seed: The seed of the bootstrap.

    Returns:
        A JSON-ready document. Among its keys are ``accuracy``, ``precision``, ``recall`` and ``f1`` (each ``macro``,
        ``micro`` and ``weighted``), ``macro_f1``, ``balanced_accuracy``, ``mean_auc``, ``mcc``, ``per_class``,
        ``normal_vs_abnormal``, ``confidence_intervals`` and ``confusion``.

    Raises:
        PackageError: scikit-learn is not installed.

    Example:
        >>> document = evaluate(predict(model, load_dataset("capsule-vision")))
        >>> document["macro_f1"], document["confidence_intervals"]["macro_f1"]
    """
    require("sklearn")
    keys = predictions.keys
    abnormal = [key in findings if findings is not None else key != "normal" for key in keys]
    auc, pr_auc = one_vs_rest_auc(predictions), _one_vs_rest_pr_auc(predictions)
    document = {
        "frames": len(predictions),
        "videos": len({video for video in predictions.video_ids if video is not None}),
        "labels": list(keys),
        "averaged_over": [key for i, key in enumerate(keys) if (predictions.labels == i).any()],
        **_summary(predictions, auc),
        "mean_pr_auc": float(mean_defined(pr_auc)),
        "per_class": _per_class(predictions, auc, pr_auc),
        "normal_vs_abnormal": _normal_vs_abnormal(predictions, np.array(abnormal)),
        "ece": ece(predictions.probabilities, predictions.labels),
        "reliability": reliability(predictions.probabilities, predictions.labels),
        "majority_baseline": _majority_baseline(predictions, np.array(abnormal)),
        "confidence_intervals": _intervals(predictions, np.array(abnormal), resamples, seed),
        "confusion": {"rows": "true", "columns": "predicted", "matrix": _confusion(predictions).tolist()},
        "curves": curves(predictions, np.array(abnormal)),
        "per_source": _grouped(predictions, predictions.sources),
        "per_video": _grouped(predictions, predictions.video_ids),
        "skipped": list(predictions.skipped),
    }
    return {name: defined(value) for name, value in document.items()}


def one_vs_rest_auc(predictions: Predictions) -> npt.NDArray[np.float64]:
    """Return the ROC-AUC of each label against the rest, float (L,).

    NaN for a label without a frame, or without a frame of another label.
    """
    from sklearn.metrics import roc_auc_score

    return _per_label(predictions, roc_auc_score)


def defined(value: Any) -> Any:
    """Return a JSON-ready copy of ``value``: plain Python numbers, None for numbers that are not finite."""
    if isinstance(value, Mapping):
        return {name: defined(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [defined(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _summary(predictions: Predictions, auc: npt.NDArray[np.float64]) -> dict[str, Any]:
    from sklearn.metrics import accuracy_score, matthews_corrcoef, precision_recall_fscore_support

    true, answered = predictions.labels, predictions.predicted
    columns = range(len(predictions.keys))
    each = precision_recall_fscore_support(true, answered, labels=columns, zero_division=np.nan)
    support = each[3]
    figures: dict[str, Any] = {"accuracy": float(accuracy_score(true, answered))}
    for name, values in zip(("precision", "recall", "f1"), each[:3], strict=True):
        there = np.isfinite(values) & (support > 0)
        figures[name] = {
            "macro": float(values[there].mean()) if there.any() else None,
            # Every frame has one label and one prediction, so the micro averages all equal the accuracy.
            "micro": figures["accuracy"],
            "weighted": float(np.average(values[there], weights=support[there])) if there.any() else None,
        }
    constant = len(np.unique(true)) < 2 or len(np.unique(answered)) < 2
    return {
        **figures,
        "macro_f1": figures["f1"]["macro"],
        "balanced_accuracy": figures["recall"]["macro"],
        "mean_auc": float(mean_defined(auc)),
        "mcc": None if constant else float(matthews_corrcoef(true, answered)),
    }


def _one_vs_rest_pr_auc(predictions: Predictions) -> npt.NDArray[np.float64]:
    from sklearn.metrics import average_precision_score

    return _per_label(predictions, average_precision_score)


def _per_class(
    predictions: Predictions, auc: npt.NDArray[np.float64], pr_auc: npt.NDArray[np.float64]
) -> dict[str, Any]:
    figures = rates(_confusion(predictions).astype(np.float64))
    pairs = set(zip(predictions.labels.tolist(), predictions.video_ids, strict=True))
    return {
        key: {
            "support": int((predictions.labels == i).sum()),
            "videos": sum(label == i and video is not None for label, video in pairs),
            "precision": figures["precision"][i],
            "recall": figures["recall"][i],
            "specificity": figures["specificity"][i],
            "f1": figures["f1"][i],
            "auc": auc[i],
            "pr_auc": pr_auc[i],
        }
        for i, key in enumerate(predictions.keys)
    }


def _per_label(predictions: Predictions, score: Any) -> npt.NDArray[np.float64]:
    values = np.full(len(predictions.keys), np.nan)
    for i in range(len(values)):
        positive = predictions.labels == i
        if positive.any() and not positive.all():
            values[i] = score(positive, predictions.probabilities[:, i])
    return values


def _normal_vs_abnormal(predictions: Predictions, abnormal: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """Compute how well the predictions tell abnormal frames from normal ones.

    ``sensitivity_at_specificity`` is the best sensitivity among the thresholds with at least that specificity.
    """
    from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

    positive, score = abnormal[predictions.labels], predictions.probabilities[:, abnormal].sum(axis=1)
    counts = {"normal_frames": int((~positive).sum()), "abnormal_frames": int(positive.sum())}
    if positive.all() or not positive.any():
        nothing = {f"{s:.2f}": None for s in SPECIFICITIES}
        return {**counts, "auc": None, "pr_auc": None, "sensitivity_at_specificity": nothing}
    false, hit, _ = roc_curve(positive, score, drop_intermediate=False)
    # 1 - .9 is .09999999999999998. The tolerance allows a rate of exactly one tenth.
    at = {f"{s:.2f}": float(hit[false <= 1 - s + 1e-9].max()) for s in SPECIFICITIES}
    return {
        **counts,
        "auc": float(roc_auc_score(positive, score)),
        "pr_auc": float(average_precision_score(positive, score)),
        "sensitivity_at_specificity": at,
    }


def _majority_baseline(predictions: Predictions, abnormal: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """Compute the figures of always predicting the most frequent label of these frames, without a model."""
    column = int(np.bincount(predictions.labels, minlength=len(predictions.keys)).argmax())
    always = np.zeros_like(predictions.probabilities)
    always[:, column] = 1
    constant = dataclasses.replace(predictions, probabilities=always)
    binary = _normal_vs_abnormal(constant, abnormal)
    return {
        "label": predictions.keys[column],
        **_summary(constant, one_vs_rest_auc(constant)),
        "mean_pr_auc": float(mean_defined(_one_vs_rest_pr_auc(constant))),
        "normal_vs_abnormal": {
            name: binary[name] for name in ("auc", "pr_auc", "sensitivity_at_specificity")
        },
    }


def _intervals(
    predictions: Predictions, abnormal: npt.NDArray[np.bool_], resamples: int, seed: int
) -> dict[str, Any] | None:
    """Compute 95 % percentile intervals; each is None where there are too few videos."""
    if not resamples:
        return None
    how = {"method": "percentile bootstrap over videos", "level": LEVEL, "resamples": resamples, "seed": seed}
    drawn = resample_videos(predictions.video_ids, resamples=resamples, seed=seed)
    each = ("precision", "recall", "specificity", "f1", "auc", "pr_auc")
    overall = ("accuracy", "macro_f1", "balanced_accuracy", "mcc", "mean_auc", "mean_pr_auc")
    if drawn is None:
        reason = why_no_intervals(predictions.video_ids, resamples)
        nothing = dict.fromkeys((*overall, "normal_vs_abnormal_auc", "normal_vs_abnormal_pr_auc"))
        at = {f"{s:.2f}": None for s in SPECIFICITIES}
        return {**how, "reason": reason, **nothing, "sensitivity_at_specificity": at, "per_class": {}}
    scores, true = predictions.probabilities, predictions.labels
    figures = resampled_figures(true, scores, drawn, pr_auc=True)
    any_finding = scores[:, abnormal].sum(axis=1)
    return {
        **how,
        "reason": None,
        **{name: interval(figures[name]) for name in overall},
        "normal_vs_abnormal_auc": interval(weighted_auc(any_finding, abnormal[true], drawn)),
        "normal_vs_abnormal_pr_auc": interval(weighted_average_precision(any_finding, abnormal[true], drawn)),
        "sensitivity_at_specificity": {
            f"{s:.2f}": interval(weighted_sensitivity(any_finding, abnormal[true], drawn, s))
            for s in SPECIFICITIES
        },
        "per_class": {
            key: {name: interval(figures[name][:, i]) for name in each}
            for i, key in enumerate(predictions.keys)
        },
    }


def _confusion(predictions: Predictions) -> npt.NDArray[np.intp]:
    from sklearn.metrics import confusion_matrix

    columns = range(len(predictions.keys))
    return np.asarray(confusion_matrix(predictions.labels, predictions.predicted, labels=columns), np.intp)


def _grouped(predictions: Predictions, groups: Sequence[str | None]) -> dict[str, Any]:
    """Summarise the frames of each source or video. ``groups`` names the group of each frame; None leaves it out.

    ``majority_accuracy`` is the accuracy of always predicting the most frequent label of the group.
    """
    found = {}
    for name in sorted({group for group in groups if group is not None}):
        part = predictions.take(i for i, group in enumerate(groups) if group == name)
        support = {key: int((part.labels == i).sum()) for i, key in enumerate(part.keys)}
        found[name] = {
            "frames": len(part),
            "support": {key: count for key, count in support.items() if count},
            "majority_accuracy": max(support.values()) / len(part),
            **_summary(part, one_vs_rest_auc(part)),
        }
    return found
