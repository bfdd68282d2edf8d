"""Intervals by resampling whole videos (the cluster bootstrap; Field and Welsh, JRSS B 2007).

Frames of one video are not independent, so a bootstrap over frames gives intervals that are far too narrow.
A resample is a vector of how often each video was drawn; everything that follows from a confusion matrix is
then one product with the per-video matrices, and the AUC is computed with frame weights.
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

# Rows of (resamples, frames) weights handled at once: bounds memory at some 8 MB for 10,000 frames.
_CHUNK = 100


@dataclass(frozen=True)
class Resamples:
    """``video`` is each frame's video, intp (N,) in 0..V-1; ``counts`` how often each is drawn, (R, V)."""

    video: Indices
    counts: Array


def resample_videos(
    video_ids: Sequence[str | None], *, resamples: int = 1000, seed: int = 0
) -> Resamples | None:
    """Draw ``resamples`` times as many videos as there are, with replacement.

    None where a frame names no video, all are of one, or none is to be drawn: there is no interval then.
    """
    known = [video for video in video_ids if video is not None]
    names, video = np.unique(np.array(known, dtype=str), return_inverse=True)
    if len(known) < len(video_ids) or len(names) < 2 or resamples < 1:
        return None
    random = np.random.default_rng(seed)
    counts = random.multinomial(len(names), np.full(len(names), 1 / len(names)), size=resamples)
    return Resamples(video.astype(np.intp), counts.astype(np.float64))


def why_no_intervals(video_ids: Sequence[str | None], resamples: int) -> str:
    """Why ``resample_videos`` answered None."""
    if resamples < 1:
        return "no resamples were asked for"
    if None in video_ids:
        return f"{sum(video is None for video in video_ids):,} of {len(video_ids):,} frames name no video"
    return "all frames are of one video"


def confusion_by_video(labels: Indices, predicted: Indices, video: Indices, size: int) -> Array:
    """Confusion matrices (V, L, L) of each video, rows true, columns predicted."""
    matrices = np.zeros((int(video.max()) + 1, size, size))
    np.add.at(matrices, (video, labels, predicted), 1)
    return matrices


def rates(confusion: Array) -> Mapping[str, Array]:
    """Figures of confusion matrices (..., L, L): per class (..., L) and overall (...); NaN where undefined.

    Macro averages are over the classes that are present (have a true frame) and for which the figure is
    defined. The Matthews correlation is Gorodkin's for several classes (Comput. Biol. Chem. 2004).
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
    """``rates`` of each resample, ``auc`` (R, L) of each label against the rest and ``mean_auc`` (R,).

    With ``pr_auc`` also that (R, L) and ``mean_pr_auc`` (R,): half the work again.
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
    """ROC-AUC (R,) of each resample for ``scores`` (N,): the Mann-Whitney statistic, a tie counts one half.

    NaN for a resample without a positive or without a negative.
    """
    found = []
    for up, down in _weights_by_score(scores, positive, drawn):
        # From the highest score down, so what lies below a tie is what has not come yet.
        below = down.sum(axis=1, keepdims=True) - np.cumsum(down, axis=1) + down / 2
        found.append(_ratio((up * below).sum(axis=1), up.sum(axis=1) * down.sum(axis=1)))
    return np.concatenate(found)


def weighted_average_precision(
    scores: npt.NDArray[np.floating], positive: npt.NDArray[np.bool_], drawn: Resamples
) -> Array:
    """Area under the precision-recall curve (R,) of each resample, by steps as scikit-learn's average precision.

    NaN for a resample without a positive or without a negative.
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
    """The best sensitivity (R,) of each resample among thresholds of at least ``specificity``.

    NaN for a resample without a positive or without a negative.
    """
    found = []
    for up, down in _weights_by_score(scores, positive, drawn):
        false = _ratio(np.cumsum(down, axis=1), down.sum(axis=1, keepdims=True))
        hit = _ratio(np.cumsum(up, axis=1), up.sum(axis=1, keepdims=True))
        # 1 - .9 is .09999999999999998: without the slack a rate of exactly one tenth would be refused.
        best = np.where(false <= 1 - specificity + 1e-9, hit, 0.0).max(axis=1)
        undefined = np.isnan(false[:, -1]) | np.isnan(hit[:, -1])
        found.append(np.where(undefined, np.nan, best))
    return np.concatenate(found)


def _weights_by_score(
    scores: npt.NDArray[np.floating], positive: npt.NDArray[np.bool_], drawn: Resamples
) -> Iterator[tuple[Array, Array]]:
    """Drawn weight of the positive and of the negative frames of each distinct score, highest first, (R, scores)."""
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])
    video, is_positive = drawn.video[order], positive[order].astype(np.float64)
    for first in range(0, len(drawn.counts), _CHUNK):
        weights = drawn.counts[first : first + _CHUNK, video]
        up = np.add.reduceat(weights * is_positive, starts, axis=1)
        yield up, np.add.reduceat(weights * (1 - is_positive), starts, axis=1)


def interval(values: Array) -> list[float] | None:
    """The percentile interval of resampled ``values`` (R,); None when over a tenth of them are undefined.

    A figure that exists only where one video happens to be drawn has no interval worth the name. With V
    videos a class that lies in two of them is absent from some 14 % of the resamples, in three from 5 %.
    """
    defined = values[np.isfinite(values)]
    if len(defined) < 0.9 * len(values) or not len(defined):
        return None
    low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return [float(low), float(high)]


def mean_defined(values: Array) -> Array:
    """Mean over the last axis of what is not NaN; NaN where nothing is."""
    defined = np.isfinite(values)
    return _ratio(np.where(defined, values, 0).sum(axis=-1), defined.sum(axis=-1).astype(np.float64))


def _ratio(part: Array, whole: Array) -> Array:
    result: Array = np.full(np.broadcast_shapes(part.shape, whole.shape), np.nan)
    np.divide(part, whole, out=result, where=whole > 0)
    return result
