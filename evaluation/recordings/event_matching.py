"""Match found events with true events in time, and measure how much of a recording a reader still has to read.

An event matches by its label and its temporal intersection over union, and each true event counts once, as in
temporal action detection (Heilbron et al., ActivityNet, CVPR 2015). Times are seconds of container time; spans are
half-open.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from capsule_edge.runtime.errors import InputError
from capsule_edge.runtime.study import Event

__all__ = ["Span", "event_agreement", "event_scores", "labelled_events", "match", "reading_curve", "spans"]

IOU = 0.5


@dataclass(frozen=True)
class Span:
    """An event of ``label`` over ``[start_s, end_s)`` of ``recording``; ``score`` ranks the found events."""

    recording: str
    label: str
    start_s: float
    end_s: float
    score: float = 1.0


def spans(events: Iterable[Event], recording: str) -> list[Span]:
    """Return the events of a study as spans, scored by their peak probability."""
    return [Span(recording, e.label, e.start_s, e.end_s, e.peak_p) for e in events]


def labelled_events(
    labels: Sequence[str], times_s: Sequence[float], recording: str, *, ignore: Iterable[str] = ("normal",)
) -> list[Span]:
    """Turn runs of frames with the same label into events.

    An event ends where the next frame begins. An event at the end of the recording ends one median frame distance
    after its last frame.

    Args:
        labels: The label key of each frame.
        times_s: The time of each frame in seconds; must not fall.
        recording: The name that the spans carry.
        ignore: Labels that make no event.

    Returns:
        The events in order of time.

    Raises:
        InputError: The lengths differ, or the times fall.

    Example:
        >>> labelled_events(["normal", "polyp", "polyp"], [0.0, 0.5, 1.0], "exam")
        [Span(recording='exam', label='polyp', start_s=0.5, end_s=1.5, score=1.0)]
    """
    if len(labels) != len(times_s):
        raise InputError(
            f"there are {len(labels)} labels and {len(times_s)} times, each frame needs one of each"
        )
    times = np.asarray(times_s, np.float64)
    steps = np.diff(times)
    if (steps < 0).any():
        raise InputError(f"the times of {recording} fall at row {int(np.argmax(steps < 0)) + 1}")
    if not len(times):
        return []
    ends = np.r_[times[1:], times[-1] + (np.median(steps) if len(steps) else 0.0)]
    starts = [i for i, label in enumerate(labels) if i == 0 or labels[i - 1] != label]
    skip = set(ignore)
    return [
        Span(recording, labels[first], float(times[first]), float(ends[after - 1]))
        for first, after in zip(starts, [*starts[1:], len(labels)], strict=True)
        if labels[first] not in skip
    ]


def match(found: Sequence[Span], true: Sequence[Span], *, iou: float = IOU) -> list[int | None]:
    """Return for each found event the index of the true event that it matches, or None for a false event.

    Found events choose in order of falling score. Each takes, among the true events of its label and recording that
    are still free, the one with the largest overlap, if that is at least ``iou``.
    """
    answer: list[int | None] = [None] * len(found)
    free = set(range(len(true)))
    for i in sorted(range(len(found)), key=lambda i: (-found[i].score, found[i].recording, found[i].start_s)):
        overlaps = [(_iou(found[i], true[j]), -j) for j in free]
        best, j = max(overlaps, default=(0.0, 0))
        if best >= iou and best > 0:
            answer[i] = -j
            free.remove(-j)
    return answer


def event_scores(found: Sequence[Span], true: Sequence[Span], *, iou: float = IOU) -> dict[str, Any]:
    """Return precision, recall and F1 of the events, and the mean average precision.

    Average precision is the area under the precision envelope; its mean is over the labels that have a true event. A
    figure is None where it is undefined, that is, where there is no true or no found event.
    """
    matched = match(found, true, iou=iou)
    hits = sum(j is not None for j in matched)
    per_label = {}
    for label in sorted({s.label for s in [*found, *true]}):
        there = sum(s.label == label for s in true)
        mine = sorted(
            ((s.score, j is not None) for s, j in zip(found, matched, strict=True) if s.label == label),
            key=lambda item: -item[0],
        )
        per_label[label] = {
            "true": there,
            "found": len(mine),
            "hits": sum(hit for _, hit in mine),
            "average_precision": _average_precision([hit for _, hit in mine], there),
        }
    precisions = [e["average_precision"] for e in per_label.values() if e["average_precision"] is not None]
    return {
        "iou": iou,
        "true": len(true),
        "found": len(found),
        "hits": hits,
        "precision": hits / len(found) if found else None,
        "recall": hits / len(true) if true else None,
        "f1": 2 * hits / (len(found) + len(true)) if found or true else None,
        "mean_average_precision": float(np.mean(precisions)) if precisions else None,
        "per_label": per_label,
    }


def event_agreement(a: Sequence[Span], b: Sequence[Span], *, iou: float = IOU) -> dict[str, Any]:
    """Measure how far two models find the same events: ``agreement`` is their F1, None where neither finds one."""
    hits = sum(j is not None for j in match(b, a, iou=iou))
    both = len(a) + len(b)
    return {
        "iou": iou,
        "a": len(a),
        "b": len(b),
        "matched": hits,
        "agreement": 2 * hits / both if both else None,
    }


def reading_curve(
    abnormal: npt.NDArray[np.floating[Any]],
    truth: npt.NDArray[np.bool_],
    shares: Sequence[float] = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5),
) -> list[dict[str, float | None]]:
    """Return the sensitivity to abnormal frames when a reader opens only the frames with the highest scores.

    Args:
        abnormal: float (N,), the score of each frame.
        truth: bool (N,), whether the frame is abnormal.
        shares: Shares of all frames that the reader opens, 0..1. Frames of equal score are opened in order of time.

    Returns:
        ``share`` and ``sensitivity`` for each of ``shares``; the sensitivity is None without an abnormal frame.

    Raises:
        InputError: There are no frames, or the lengths differ.
    """
    if len(abnormal) != len(truth) or not len(truth):
        raise InputError(
            f"there are {len(abnormal)} scores and {len(truth)} labels, each frame needs one of each"
        )
    seen = np.cumsum(truth[np.argsort(-abnormal, kind="stable")])
    total = int(seen[-1])
    counts = [max(1, round(share * len(truth))) for share in shares]
    return [
        {"share": share, "sensitivity": float(seen[count - 1] / total) if total else None}
        for share, count in zip(shares, counts, strict=True)
    ]


def _iou(a: Span, b: Span) -> float:
    if a.label != b.label or a.recording != b.recording:
        return 0.0
    shared = min(a.end_s, b.end_s) - max(a.start_s, b.start_s)
    either = max(a.end_s, b.end_s) - min(a.start_s, b.start_s)
    return max(shared, 0.0) / either if either > 0 else 0.0


def _average_precision(hits: Sequence[bool], true: int) -> float | None:
    if not true:
        return None
    if not hits:
        return 0.0
    at = np.cumsum(hits)
    envelope = np.maximum.accumulate((at / np.arange(1, len(hits) + 1))[::-1])[::-1]
    return float((envelope * np.asarray(hits)).sum() / true)
