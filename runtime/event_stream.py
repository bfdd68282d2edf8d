"""Events while a recording is being read: each as soon as no later frame can change it.

The same events as ``find_events`` gives of all frames, by the same rules and to the same bit; they come in
the order in which they close, and without the numbers that only the end can give.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .events import (
    SLACK_S,
    TimeKind,
    Timeline,
    capture_scale,
    find_runs,
    is_answered,
    mean_over,
    vote_reach_s,
)
from .spec import Label, ModelSpec, Role
from .study import Event, FrameRecord

__all__ = ["EventStream"]

Floats = npt.NDArray[np.float64]


class _Rows:
    """An array that grows by rows; ``filled`` is a view of what is in it."""

    def __init__(self, *shape: int, dtype: type = np.float64) -> None:
        self._array: npt.NDArray[Any] = np.empty((1024, *shape), dtype)
        self._count = 0

    def add(self, rows: npt.NDArray[Any]) -> None:
        after = self._count + len(rows)
        if after > len(self._array):
            grown = np.empty((max(after, 2 * len(self._array)), *self._array.shape[1:]), self._array.dtype)
            grown[: self._count] = self.filled
            self._array = grown
        self._array[self._count : after] = rows
        self._count = after

    @property
    def filled(self) -> npt.NDArray[Any]:
        return self._array[: self._count]


@dataclass
class _Track:
    """One label. Positions from ``begin`` on may still be part of an event that has not closed."""

    label: Label
    column: int
    threshold: float
    begin: int = 0


class EventStream:
    """Takes frames in presentation order, each once and when its status is settled."""

    def __init__(
        self,
        spec: ModelSpec,
        *,
        median_distance_s: float | None,
        time_kind: TimeKind,
        capture_fps: float | None = None,
        role: Role = "finding",
    ) -> None:
        """``median_distance_s`` is that of all frames, seconds of container time; the rest as in ``find_events``."""
        self._rule = rule = spec.events
        self._median_distance_s = median_distance_s
        self._scale = capture_scale(
            rule, median_distance_s=median_distance_s, time_kind=time_kind, capture_fps=capture_fps
        )
        self._reach_s = vote_reach_s(rule.smoothing_s, rule.max_gap_s)
        # Further apart than this, two runs of a label stay two events.
        self._apart_s = max(rule.max_gap_s, rule.merge_s) + SLACK_S
        labels = len(spec.labels)
        self._tracks = [
            _Track(spec.labels[column], column, point.threshold)
            for column in spec.index_of(role)
            if (point := spec.operating_points.get(spec.labels[column].key)) is not None
        ]
        self._indices, self._times = _Rows(dtype=np.int64), _Rows()
        self._every, self._probabilities = _Rows(), _Rows(labels)
        self._smoothed, self._totals = _Rows(labels), _Rows(labels)
        self._totals.add(np.zeros((1, labels)))

    def add(self, frames: Iterable[FrameRecord]) -> list[Event]:
        """Take the next frames; returns the events that have closed, by start and then label."""
        timed = [frame for frame in frames if frame.time_s is not None]
        used = [frame for frame in timed if is_answered(frame)]
        self._every.add(np.array([frame.time_s for frame in timed], np.float64))
        if not used:
            return []
        rows = np.stack([frame.probabilities for frame in used]).astype(np.float64)  # type: ignore[misc]
        self._indices.add(np.array([frame.index for frame in used], np.int64))
        self._times.add(np.array([frame.time_s for frame in used], np.float64))
        self._probabilities.add(rows)
        # In the order in which one sum over all frames would add them.
        self._totals.add(np.cumsum(np.concatenate((self._totals.filled[-1:], rows)), axis=0)[1:])
        return self._close(ended=False)

    def finish(self) -> list[Event]:
        """No frame comes any more; returns the events that had not closed."""
        return self._close(ended=True)

    def _close(self, *, ended: bool) -> list[Event]:
        timeline = Timeline(
            self._indices.filled,
            self._times.filled,
            self._probabilities.filled,
            self._every.filled,
            self._scale,
            self._median_distance_s,
        )
        capture_s = timeline.times_s * self._scale
        settled = self._smooth(capture_s, ended)
        # A run of too few frames at the end may yet become an event, and up to there lies what a frame that
        # is still to come could join.
        edge = settled - 1 - self._rule.min_frames
        edge_s = np.inf if ended else float(capture_s[edge]) if edge >= 0 else -np.inf
        found = [
            timeline.event(track.label, track.column, first, last, self._rule)
            for track in self._tracks
            for first, last in self._closed(track, timeline.probabilities, capture_s, settled, edge_s)
        ]
        return sorted(found, key=lambda event: (event.start_s, event.label, event.start_index))

    def _smooth(self, capture_s: Floats, ended: bool) -> int:
        """Smooth the frames for which all votes are in; returns their number."""
        done = len(self._smoothed.filled)
        after = len(capture_s)
        if not ended and after:
            # A frame as late as the last may follow it.
            after = int(np.searchsorted(capture_s + self._reach_s, capture_s[-1], side="left"))
        if after > done:
            self._smoothed.add(mean_over(self._totals.filled, capture_s, slice(done, after), self._reach_s))
        return len(self._smoothed.filled)

    def _closed(
        self, track: _Track, probabilities: Floats, capture_s: Floats, settled: int, edge_s: float
    ) -> list[tuple[int, int]]:
        span = slice(track.begin, settled)
        smoothed = self._smoothed.filled[span, track.column]
        # A frame below the release level ends any run.
        low = round(self._rule.release * track.threshold, 6)
        if not len(smoothed) or smoothed.max() < low:
            track.begin = settled
            return []
        runs = [
            (first + track.begin, last + track.begin)
            for first, last in find_runs(
                smoothed, probabilities[span], capture_s[span], threshold=track.threshold, rule=self._rule
            )
        ]
        closed = 0
        for place, (_, last) in enumerate(runs):
            follows_s = edge_s
            if place + 1 < len(runs):
                follows_s = min(edge_s, float(capture_s[runs[place + 1][0]]))
            if follows_s - capture_s[last] > self._apart_s:
                # Whether those before it join was decided by what has closed now.
                closed = place + 1
        if closed:
            track.begin = runs[closed - 1][1] + 1
        elif not runs:
            below = np.flatnonzero(smoothed < low)
            if len(below):
                track.begin += int(below[-1])
        return runs[:closed]
