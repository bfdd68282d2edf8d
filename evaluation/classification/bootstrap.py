"""Compute confidence intervals by resampling whole videos (cluster bootstrap; Field and Welsh, JRSS B 2007).

Frames of one video are not independent, so a bootstrap over frames gives intervals that are far too narrow. A resample
is a vector that says how often each video was drawn. Figures of a confusion matrix then follow from one product with
the matrices of the videos, and areas under curves are computed with frame weights.

R is the number of resamples, N of frames, V of videos and L of labels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from capsule_edge.runtime.inference import most_probable

__all__ = [
    "LEVEL",
    "Resamples",
    "confusion_by_video",
    "interval",
    "mean_defined",
    "rates",
    "resample_videos",
    "resampled_figures",
    "weighted_auc",
    "weighted_average_precision",
    "weighted_sensitivity",
    "why_no_intervals",
]

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]

LEVEL = 0.95
"""The level of all confidence intervals."""

# Resamples handled at once. The (resamples, frames) weights then take 8 MB for 10,000 frames.
_CHUNK = 100


@dataclass(frozen=True)
class Resamples:
    """Resamples of videos.

    Attributes:
        video: intp (N,) in 0..V-1, the video of each frame.
        counts: float (R, V), how often each video is drawn in each resample.
    """

    video: Indices
    counts: Array


def resample_videos(
    video_ids: Sequence[str | None], *, resamples: int = 1000, seed: int = 0
) -> Resamples | None:
    """Draw videos with replacement, as many as there are, once for each resample.

    Args:
        video_ids: The video of each frame, None where it is unknown.
        resamples: The number of resamples.
        seed: The seed of the drawing.

    Returns:
        The resamples; None if a frame names no video, all frames are of one video, or ``resamples`` is 0. There are no
        intervals then (``why_no_intervals``).
    """
    known = [video for video in video_ids if video is not None]
    names, video = np.unique(np.array(known, dtype=str), return_inverse=True)
    if len(known) < len(video_ids) or len(names) < 2 or resamples < 1:
        return None
    random = np.random.default_rng(seed)
    counts = random.multinomial(len(names), np.full(len(names), 1 / len(names)), size=resamples)
    return Resamples(video.astype(np.intp), counts.astype(np.float64))


def why_no_intervals(video_ids: Sequence[str | None], resamples: int) -> str:
    """Return the reason for which ``resample_videos`` returned None."""
    # This text is part of reports and certificates.
    if resamples < 1:
        return "no resamples were asked for"
    if None in video_ids:
        return f"{sum(video is None for video in video_ids):,} of {len(video_ids):,} frames name no video"
    return "all frames are of one video"


def confusion_by_video(labels: Indices, predicted: Indices, video: Indices, size: int) -> Array:
    """Return the confusion matrix of each video, float (V, L, L); rows are true, columns predicted labels.

    Args:
        labels: intp (N,) in 0..L-1, the true labels.
        predicted: intp (N,) in 0..L-1, the predicted labels.
        video: intp (N,) in 0..V-1, the video of each frame.
        size: L, the number of labels.
    """
    matrices = np.zeros((int(video.max()) + 1, size, size))
    np.add.at(matrices, (video, labels, predicted), 1)
    return matrices


def rates(confusion: Array) -> Mapping[str, Array]:
    """Compute the figures of confusion matrices.

    Macro averages are over the classes that have a true frame and for which the figure is defined. The Matthews
    correlation is Gorodkin's for several classes (Comput. Biol. Chem. 2004).

    Args:
        confusion: float (..., L, L); rows are true, columns predicted labels.

    Returns:
        Figures by name, of each class (..., L) and overall (...); NaN where undefined.
    """
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    support, answered = confusion.sum(axis=-1), confusion.sum(axis=-2)
    total = support.sum(axis=-1, keepdims=True)
    recall = _ratio(hits, support)
    precision = np.where(support > 0, _ratio(hits, answered), np.nan)
    f1 = np.where(support > 0, _ratio(2 * hits, support + answered), np.nan)
    specificity = _ratio(total - support - answered + hits, total - support)
    n = total[..., 0]
    covariance = hits.sum(axis=-1) * n - (support * answered).sum(axis=-1)
    spread = (n**2 - (answered**2).sum(axis=-1)) * (n**2 - (support**2).sum(axis=-1))
    return {
        "recall": recall,
        "precision": precision,
        "f1": f1,
        "specificity": specificity,
        "accuracy": _ratio(hits.sum(axis=-1), n),
        "macro_precision": mean_defined(precision),
        "macro_f1": mean_defined(f1),
        "balanced_accuracy": mean_defined(recall),
        "mcc": _ratio(covariance, np.sqrt(spread)),
    }


def resampled_figures(
    labels: Indices, probabilities: npt.NDArray[np.floating[Any]], drawn: Resamples, *, pr_auc: bool = False
) -> Mapping[str, Array]:
    """Compute the figures of each resample.

    Args:
        labels: intp (N,) in 0..L-1, the true labels.
        probabilities: float (N, L) in 0..1.
        drawn: The resamples.
        pr_auc: Compute the area under the precision-recall curve too, which takes half as much time again.

    Returns:
        The figures of ``rates``; ``auc`` (R, L) of each label against the rest and ``mean_auc`` (R,); with ``pr_auc``
        also ``pr_auc`` (R, L) and ``mean_pr_auc`` (R,).
    """
    size = probabilities.shape[1]
    matrices = confusion_by_video(labels, most_probable(probabilities), drawn.video, size)
    totals = (drawn.counts @ matrices.reshape(len(matrices), -1)).reshape(-1, size, size)
    areas = {"auc": weighted_auc, **({"pr_auc": weighted_average_precision} if pr_auc else {})}
    found = dict(rates(totals))
    for name, area in areas.items():
        columns = [area(probabilities[:, i], labels == i, drawn) for i in range(size)]
        found[name] = np.stack(columns, axis=1)
        found[f"mean_{name}"] = mean_defined(found[name])
    return found


def weighted_auc(
    scores: npt.NDArray[np.floating], positive: npt.NDArray[np.bool_], drawn: Resamples
) -> Array:
    """Compute the area under the ROC curve of each resample: the Mann-Whitney statistic, ties count one half.

    Args:
        scores: float (N,).
        positive: bool (N,).
        drawn: The resamples.

    Returns:
        float (R,) in 0..1; NaN for a resample without a positive or without a negative frame.
    """
    found = []
    for up, down in _weights_by_score(scores, positive, drawn):
        # Scores fall along the axis: the negatives below a score are all minus those up to it, ties count half.
        below = down.sum(axis=1, keepdims=True) - np.cumsum(down, axis=1) + down / 2
        found.append(_ratio((up * below).sum(axis=1), up.sum(axis=1) * down.sum(axis=1)))
    return np.concatenate(found)


def weighted_average_precision(
    scores: npt.NDArray[np.floating], positive: npt.NDArray[np.bool_], drawn: Resamples
) -> Array:
    """Compute the area under the precision-recall curve of each resample, as scikit-learn's average precision.

    Args:
        scores: float (N,).
        positive: bool (N,).
        drawn: The resamples.

    Returns:
        float (R,) in 0..1; NaN for a resample without a positive or without a negative frame.
    """
    found = []
    for up, down in _weights_by_score(scores, positive, drawn):
        hits, false = np.cumsum(up, axis=1), np.cumsum(down, axis=1)
        precision = np.nan_to_num(_ratio(hits, hits + false))
        area = _ratio((up * precision).sum(axis=1), hits[:, -1])
        found.append(np.where(false[:, -1] > 0, area, np.nan))
    return np.concatenate(found)


def weighted_sensitivity(
    scores: npt.NDArray[np.floating],
    positive: npt.NDArray[np.bool_],
    drawn: Resamples,
    specificity: float,
) -> Array:
    """Compute the best sensitivity of each resample among the thresholds with at least this specificity.

    Args:
        scores: float (N,).
        positive: bool (N,).
        drawn: The resamples.
        specificity: The least specificity, 0..1.

    Returns:
        float (R,) in 0..1; NaN for a resample without a positive or without a negative frame.
    """
    found = []
    for up, down in _weights_by_score(scores, positive, drawn):
        false = _ratio(np.cumsum(down, axis=1), down.sum(axis=1, keepdims=True))
        hit = _ratio(np.cumsum(up, axis=1), up.sum(axis=1, keepdims=True))
        # 1 - .9 is .09999999999999998. The tolerance allows a rate of exactly one tenth.
        best = np.where(false <= 1 - specificity + 1e-9, hit, 0.0).max(axis=1)
        undefined = np.isnan(false[:, -1]) | np.isnan(hit[:, -1])
        found.append(np.where(undefined, np.nan, best))
    return np.concatenate(found)


def _weights_by_score(
    scores: npt.NDArray[np.floating], positive: npt.NDArray[np.bool_], drawn: Resamples
) -> Iterator[tuple[Array, Array]]:
    """Yield, for chunks of resamples, the weights of positive and negative frames at each distinct score.

    Both are (resamples of the chunk, distinct scores), the highest score first.
    """
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])
    video, is_positive = drawn.video[order], positive[order].astype(np.float64)
    for first in range(0, len(drawn.counts), _CHUNK):
        weights = drawn.counts[first : first + _CHUNK, video]
        up = np.add.reduceat(weights * is_positive, starts, axis=1)
        yield up, np.add.reduceat(weights * (1 - is_positive), starts, axis=1)


def interval(values: Array) -> list[float] | None:
    """Return the percentile interval [low, high] of resampled values.

    A figure that is defined only when one certain video is drawn has no meaningful interval. A class that lies in two
    of many videos is absent from some 14 % of the resamples, a class in three from 5 %.

    Args:
        values: float (R,), NaN where undefined.

    Returns:
        The ends of the interval; None if more than a tenth of the values are undefined.
    """
    defined = values[np.isfinite(values)]
    if len(defined) < 0.9 * len(values) or not len(defined):
        return None
    low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return [float(low), float(high)]


def mean_defined(values: Array) -> Array:
    """Return the mean over the last axis without NaN values; NaN where all are NaN."""
    defined = np.isfinite(values)
    return _ratio(np.where(defined, values, 0).sum(axis=-1), defined.sum(axis=-1).astype(np.float64))


def _ratio(part: Array, whole: Array) -> Array:
    """Return ``part / whole``, NaN where ``whole`` is 0."""
    result: Array = np.full(np.broadcast_shapes(part.shape, whole.shape), np.nan)
    np.divide(part, whole, out=result, where=whole > 0)
    return result
