"""Measure findings hit and seen against false events, each recording read with what was fitted on other videos.

For each budget of false events, the recordings of one video are left out, the events are fitted on all others, and the
fit reads the recordings left out. A point of the curve counts all recordings, each read in this way, so no fit is
judged on a recording that it has seen. Thresholds that are applied frame by frame are measured in the same way.

Intervals are 95 % intervals of a bootstrap over videos. The data name videos, not patients: if several videos are of
one patient, the intervals are too narrow.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from capsule_edge.runtime.inference import ModelSpec

from ..classification import LEVEL, interval, resample_videos
from .event_search import EventFit, EventSearch, read_with
from .findings import COUNTS, Reading, count_by_label
from .recording_scores import RecordingAnswers

__all__ = [
    "BUDGETS",
    "UNIT",
    "LeftOut",
    "count_recording",
    "event_curve",
    "frame_budgets",
    "why_not_left_out",
]

BUDGETS = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 7.5, 10.0)
"""The default budgets of a curve, in false events in 1,000 frames."""

# Thresholds that are applied frame by frame need larger budgets for as many hits.
_FRAME_BUDGETS = (15.0, 20.0, 30.0, 50.0)

UNIT = "Each video is left out in turn and intervals are over videos: the data name videos, not patients."
"""The sentence that every output with figures of this module carries."""

RESAMPLES = 2000
_RATE = "false_events_per_1000_frames"


@dataclass(frozen=True)
class LeftOut:
    """The fits on all videos but one, and their readings of the recordings of that video.

    Attributes:
        recordings: The R recordings.
        budgets: The budgets of the fits, in false events in 1,000 frames.
        fits: For each budget, the R fits; each is of the videos other than the recording's own.
        readings: For each budget, the R readings.
    """

    recordings: tuple[RecordingAnswers, ...]
    budgets: tuple[float, ...]
    fits: tuple[tuple[EventFit, ...], ...]
    readings: tuple[tuple[Reading, ...], ...]

    @classmethod
    def of(
        cls,
        spec: ModelSpec,
        search: EventSearch,
        recordings: Sequence[RecordingAnswers],
        budgets: Iterable[float],
    ) -> LeftOut:
        """Leave out each video in turn.

        Args:
            spec: The model.
            search: The search over these recordings.
            recordings: Recordings of which each video can be left out (``why_not_left_out``).
            budgets: The budgets, in false events in 1,000 frames.
        """
        wanted = tuple(sorted(set(budgets)))
        fits: dict[str, list[EventFit]] = {}
        for video in dict.fromkeys(one.video_id for one in recordings):
            others = [at for at, one in enumerate(recordings) if one.video_id != video]
            fits[video] = search.fits(wanted, others)
        chosen = tuple(tuple(fits[one.video_id][at] for one in recordings) for at in range(len(wanted)))
        readings = tuple(
            tuple(read_with(spec, one, fit) for one, fit in zip(recordings, row, strict=True))
            for row in chosen
        )
        return cls(tuple(recordings), wanted, chosen, readings)

    def at(self, budget: float) -> tuple[Reading, ...]:
        """Return the readings within a budget."""
        return self.readings[self.budgets.index(budget)]

    def rules(self, budget: float) -> list[dict[str, Any]]:
        """Return the event parameters and thresholds with which each recording was read within a budget."""
        fits = self.fits[self.budgets.index(budget)]
        return [
            {
                "recording": one.recording,
                "events": dataclasses.asdict(fit.events),
                "thresholds": dict(fit.thresholds),
            }
            for one, fit in zip(self.recordings, fits, strict=True)
        ]

    def count(self, budget: float) -> list[dict[str, Any]]:
        """Return ``count_recording`` of each recording within a budget."""
        pairs = zip(self.recordings, self.at(budget), strict=True)
        return [count_recording(one, reading) for one, reading in pairs]


def why_not_left_out(search: EventSearch, recordings: Sequence[RecordingAnswers]) -> str | None:
    """Return in one line why no video can be left out in turn; None if each can.

    Args:
        search: The search over these recordings.
        recordings: The recordings, at least one.
    """
    videos = [one.video_id for one in recordings]
    if len(set(videos)) < 2:
        return f"all recordings ({len(videos)}) are of the video {videos[0]}: it cannot be left out"
    there = search.table.findings.sum(axis=0).tolist()
    with_finding = {video for video, count in zip(videos, there, strict=True) if count}
    if len(with_finding) < 2:
        named = f"only the video {min(with_finding)} has a finding" if with_finding else "no video has one"
        return f"{named}: nothing can be fitted on the others"
    return None


def event_curve(
    spec: ModelSpec, events: LeftOut, frames: LeftOut, *, resamples: int = RESAMPLES
) -> dict[str, Any]:
    """Return the curves of events and of thresholds applied frame by frame.

    Args:
        spec: The model.
        events: The left-out readings of the event search.
        frames: The left-out readings of thresholds applied frame by frame, of the same recordings.
        resamples: The number of resamples of the bootstrap.

    Returns:
        A JSON-ready document: ``unit`` (the sentence ``UNIT``), ``videos``, ``resamples``, ``level``; ``events`` and
        ``frame_by_frame``, the points by rising budget. A point has the counts of ``count_by_label`` in total and
        ``by_label``; ``hit_share``, ``seen_share`` and ``false_events_per_1000_frames``; and ``intervals``, the ends
        of the 95 % interval of each of the three. A point of ``events`` names besides, as ``frame_by_frame``, the
        point of that curve with the fewest false events among those with at least as many hits; None without one.
    """
    keys = [spec.keys[at] for at in spec.index_of("finding")]
    frame_points = [_point(keys, frames, at, resamples) for at in range(len(frames.budgets))]
    points = [_point(keys, events, at, resamples) for at in range(len(events.budgets))]
    for point in points:
        as_good = [other for other in frame_points if other["hit"] >= point["hit"]]
        best = min(as_good, key=lambda other: float(other[_RATE]), default=None)
        point["frame_by_frame"] = best and {name: best[name] for name in ("budget", "hit", "seen", _RATE)}
    return {
        "unit": UNIT,
        "videos": len({one.video_id for one in events.recordings}),
        "resamples": resamples,
        "level": LEVEL,
        "events": points,
        "frame_by_frame": frame_points,
    }


def frame_budgets(budgets: Iterable[float]) -> tuple[float, ...]:
    """Return the budgets at which thresholds that are applied frame by frame are measured."""
    return tuple(sorted({*budgets, *_FRAME_BUDGETS}))


def count_recording(answers: RecordingAnswers, reading: Reading) -> dict[str, Any]:
    """Return the totals of ``count_by_label`` for one recording, with its name, its video and its frames."""
    rows = count_by_label([reading])
    totals = {name: sum(row[name] for row in rows.values()) for name in COUNTS}
    return {
        "recording": answers.recording,
        "video": answers.video_id,
        "frames": len(answers.labels),
        **totals,
    }


def _point(keys: Sequence[str], left_out: LeftOut, at: int, resamples: int) -> dict[str, Any]:
    rows = left_out.count(left_out.budgets[at])
    totals = {name: sum(row[name] for row in rows) for name in ("frames", *COUNTS)}
    return {
        "budget": left_out.budgets[at],
        **totals,
        **_shares({name: float(value) for name, value in totals.items()}),
        "intervals": _intervals(rows, resamples),
        "by_label": count_by_label(left_out.readings[at], keys),
    }


def _shares(sums: Mapping[str, Any]) -> dict[str, Any]:
    """Return the three figures of a point from sums over recordings (numbers, or one array for each)."""
    return {
        "hit_share": sums["hit"] / sums["findings"],
        "seen_share": sums["seen"] / sums["findings"],
        _RATE: 1000 * sums["false_events"] / sums["frames"],
    }


def _intervals(rows: Sequence[Mapping[str, Any]], resamples: int) -> dict[str, list[float] | None] | None:
    """Return the bootstrap interval of each figure; None where no videos can be drawn."""
    drawn = resample_videos([row["video"] for row in rows], resamples=resamples)
    if drawn is None:
        return None
    names = ("findings", "hit", "seen", "false_events", "frames")
    sums: dict[str, npt.NDArray[np.float64]] = {}
    for name in names:
        of_video = np.bincount(drawn.video, weights=[row[name] for row in rows])
        sums[name] = drawn.counts @ of_video
    with np.errstate(invalid="ignore", divide="ignore"):
        return {name: interval(values) for name, values in _shares(sums).items()}
