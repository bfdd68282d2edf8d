"""Find events while a recording is read: each event as soon as no later frame can change it.

``find_events`` runs the stream to its end, so there is one implementation. Events come in the order in which they
close, without their numbers, which only the end can give (``number_events``). Of the frames, the stream holds only
those that an event still to come may reach back to.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..inference import Label, ModelSpec, Role
from ..recording import TimeKind
from ..study import Columns, Event, FrameRecord, columns
from .rules import SLACK_S, Timeline, capture_scale, mean_over, merge_alike, merge_near, vote_reach_s

__all__ = ["EventStream", "find_events", "number_events"]

Floats = npt.NDArray[np.float64]

# Drop frames that are no longer needed in blocks of this many.
_ROWS = 1024


class _Rows:
    """A growing array of rows from which the first rows can be dropped; ``filled`` is a view of its rows."""

    def __init__(self, *shape: int, dtype: type = np.float64) -> None:
        self._array: npt.NDArray[Any] = np.empty((2 * _ROWS, *shape), dtype)
        self._count = 0

    def add(self, rows: npt.NDArray[Any]) -> None:
        after = self._count + len(rows)
        if after > len(self._array):
            grown = np.empty((max(after, 2 * len(self._array)), *self._array.shape[1:]), self._array.dtype)
            grown[: self._count] = self.filled
            self._array = grown
        self._array[self._count : after] = rows
        self._count = after

    def drop(self, count: int) -> None:
        """Drop the first ``count`` rows."""
        self._array[: self._count - count] = self._array[count : self._count].copy()
        self._count -= count

    @property
    def filled(self) -> npt.NDArray[Any]:
        return self._array[: self._count]


@dataclass
class _Track:
    """The state of one label.

    Attributes:
        label: of the events.
        column: of the label.
        threshold: its operating point.
        begin: positions before this belong to events that have closed, or to none.
        is_held: everything from ``begin`` to the last smoothed position is one event.
        cuts: frame indices, ascending, at which an event may begin or have ended.
    """

    label: Label
    column: int
    threshold: float
    begin: int = 0
    is_held: bool = False
    cuts: list[int] = field(default_factory=list)


class EventStream:
    """Find events in frames that come in presentation order, each once, when its status is settled."""

    def __init__(
        self,
        spec: ModelSpec,
        *,
        median_distance_s: float | None,
        time_kind: TimeKind,
        capture_fps: float | None = None,
        role: Role = "finding",
    ) -> None:
        """Takes the arguments of ``find_events``; ``median_distance_s`` is that of all frames of the recording."""
        self._rule = rule = spec.events
        self._median_distance_s = median_distance_s
        self._scale = capture_scale(
            rule, median_distance_s=median_distance_s, time_kind=time_kind, capture_fps=capture_fps
        )
        self._reach_s = vote_reach_s(rule.smoothing_s, rule.max_gap_s)
        # Further apart than this, two runs of a label stay two events.
        self._apart_s = max(rule.max_gap_s, rule.merge_s) + SLACK_S
        labels = len(spec.labels)
        self._tracks = {
            column: _Track(spec.labels[column], column, point.threshold)
            for column in spec.index_of(role)
            if (point := spec.operating_points.get(spec.labels[column].key)) is not None
        }
        # A frame below the release level ends any run.
        self._lows = np.array([round(rule.release * track.threshold, 6) for track in self._tracks.values()])
        self._indices, self._times, self._capture = _Rows(dtype=np.int64), _Rows(), _Rows()
        self._every, self._probabilities = _Rows(), _Rows(labels)
        self._smoothed, self._totals = _Rows(labels), _Rows(labels)
        self._totals.add(np.zeros((1, labels)))

    def add(self, frames: Sequence[FrameRecord]) -> list[Event]:
        """Take the next frames and return the events that have closed, sorted by start and then label."""
        return self.take(columns(frames))

    def take(self, frames: Columns) -> list[Event]:
        """Take frames given as columns; otherwise like ``add``."""
        self._every.add(frames.times_s[frames.timed])
        used = frames.evidence
        if not used.any():
            return []
        rows = frames.probabilities[used].astype(np.float64)
        times_s = frames.times_s[used]
        self._indices.add(frames.indices[used])
        self._times.add(times_s)
        self._capture.add(times_s * self._scale)
        self._probabilities.add(rows)
        # Add in the same order as a single sum over all frames, so that rounding is identical.
        self._totals.add(np.cumsum(np.concatenate((self._totals.filled[-1:], rows)), axis=0)[1:])
        found = self._close(ended=False)
        self._let_go()
        return found

    def finish(self) -> list[Event]:
        """Return the events that had not closed. Call once, after the last frame."""
        return self._close(ended=True)

    def may_be_peaks(self, column: int, frames: Mapping[int, float]) -> dict[int, float]:
        """Return the frames that may be the peak of an event of a label that has not closed.

        Between two cuts, only the frame with the highest probability can be a peak; of several equal ones, the first.

        Args:
            column: of the label.
            frames: the label's probabilities by frame index, ascending, of frames that were taken or are to come.
        """
        indices = self._indices.filled
        # The last ``min_frames - 1`` smoothed frames may belong to a run that is still too short to count, so cuts
        # there are not final.
        loose = max(0, len(self._smoothed.filled) - self._rule.min_frames + 1)
        if loose >= len(indices):
            return dict(frames)
        cuts, unsettled = self._tracks[column].cuts, int(indices[loose])
        best: dict[int, int] = {}
        found: dict[int, float] = {}
        for index, p in frames.items():
            if index >= unsettled:
                found[index] = p
            elif (stretch := bisect_right(cuts, index)) and (
                stretch not in best or p > frames[best[stretch]]
            ):
                best[stretch] = index
        return {**{index: frames[index] for index in sorted(best.values())}, **found}

    def _close(self, *, ended: bool) -> list[Event]:
        timeline = Timeline(
            self._indices.filled,
            self._times.filled,
            self._probabilities.filled,
            self._every.filled,
            self._scale,
            self._median_distance_s,
        )
        capture_s = self._capture.filled
        before = len(self._smoothed.filled)
        settled = self._smooth(capture_s, ended)
        if settled == before and not ended:
            return []
        fresh = self._smoothed.filled[before:settled, list(self._tracks)]
        gaps_s = np.diff(capture_s[max(before - 1, 0) : settled])
        unbroken = not ended and bool((gaps_s <= self._rule.max_gap_s + SLACK_S).all())
        quiet = (fresh.max(axis=0, initial=-np.inf) < self._lows).tolist()
        held = ((fresh.min(axis=0, initial=np.inf) >= self._lows) & unbroken).tolist()
        # A short run at the end may grow into an event, which may merge with an earlier one. So only runs far enough
        # before ``edge`` are final.
        edge = settled - 1 - self._rule.min_frames
        edge_s = np.inf if ended else float(capture_s[edge]) if edge >= 0 else -np.inf
        found = []
        for place, track in enumerate(self._tracks.values()):
            if quiet[place] and track.begin == before:
                track.begin = settled
            elif not (track.is_held and held[place]):
                found += [
                    timeline.event(track.label, track.column, first, last, self._rule)
                    for first, last in self._closed(track, timeline, capture_s, settled, edge_s)
                ]
        return sorted(found, key=_order)

    def _smooth(self, capture_s: Floats, ended: bool) -> int:
        """Smooth the frames whose votes are all in and return their number."""
        done = len(self._smoothed.filled)
        after = len(capture_s)
        if not ended and after:
            # A frame with the same time may follow the last.
            after = done + int(np.searchsorted(capture_s[done:] + self._reach_s, capture_s[-1], side="left"))
        if after > done:
            self._smoothed.add(mean_over(self._totals.filled, capture_s, slice(done, after), self._reach_s))
        return len(self._smoothed.filled)

    def _closed(
        self, track: _Track, timeline: Timeline, capture_s: Floats, settled: int, edge_s: float
    ) -> list[tuple[int, int]]:
        span = slice(track.begin, settled)
        smoothed = self._smoothed.filled[span, track.column]
        low = round(self._rule.release * track.threshold, 6)
        track.is_held, track.cuts = False, []
        if not len(smoothed) or smoothed.max() < low:
            track.begin = settled
            return []
        near = [
            (first + track.begin, last + track.begin)
            for first, last in merge_near(smoothed, capture_s[span], track.threshold, self._rule)
        ]
        runs = self._alike(near, timeline, capture_s)
        closed = 0
        for place, (_, last) in enumerate(runs):
            follows_s = edge_s
            if place + 1 < len(runs):
                follows_s = min(edge_s, float(capture_s[runs[place + 1][0]]))
            if follows_s - capture_s[last] > self._apart_s:
                # If this run is final, so are all runs before it.
                closed = place + 1
        if closed:
            track.begin = runs[closed - 1][1] + 1
        elif not runs:
            below = np.flatnonzero(smoothed < low)
            if len(below):
                track.begin += int(below[-1])
        track.is_held = len(runs) == 1 and not closed and runs[0][1] == settled - 1
        unclosed = [run for run in near if run[0] >= track.begin]
        track.cuts = self._divide(unclosed, timeline, capture_s, settled)
        return runs[:closed]

    def _divide(
        self, runs: Sequence[tuple[int, int]], timeline: Timeline, capture_s: Floats, settled: int
    ) -> list[int]:
        # The last run may still grow, and its final mean decides whether it joins the runs before.
        parts = [*self._alike(runs[:-1], timeline, capture_s), *runs[-1:]]
        cuts = [place for first, last in parts for place in (first, last + 1) if place < settled]
        return [int(index) for index in timeline.indices[cuts]]

    def _alike(
        self, runs: Sequence[tuple[int, int]], timeline: Timeline, capture_s: Floats
    ) -> list[tuple[int, int]]:
        if len(runs) < 2 or not self._rule.merge_s:
            return list(runs)
        return list(merge_alike(runs, timeline.probabilities, capture_s, self._rule))

    def _let_go(self) -> None:
        """Drop the frames that no open event needs, no window reaches, and ``_close`` does not look back to."""
        settled = len(self._smoothed.filled)
        capture_s = self._capture.filled
        if settled < _ROWS:
            return
        voting = int(np.searchsorted(capture_s, capture_s[settled] - self._reach_s, side="left"))
        begins = [track.begin for track in self._tracks.values()]
        count = min([settled - 1 - self._rule.min_frames, voting, *begins])
        if count < _ROWS:
            return
        first_s = self._times.filled[count]
        for rows in (
            self._indices,
            self._times,
            self._capture,
            self._probabilities,
            self._smoothed,
            self._totals,
        ):
            rows.drop(count)
        self._every.drop(int(np.searchsorted(self._every.filled, first_s, side="left")))
        for track in self._tracks.values():
            track.begin -= count


def find_events(
    frames: Sequence[FrameRecord],
    spec: ModelSpec,
    *,
    median_distance_s: float | None,
    time_kind: TimeKind,
    capture_fps: float | None = None,
    role: Role = "finding",
) -> list[Event]:
    """Return the events of every label of a role that has an operating point, sorted by start and then label.

    For each label, the mean over ``smoothing_s`` opens an event at the label's threshold and ends it below ``release``
    of that. Runs of fewer than ``min_frames`` frames are dropped. What remains is merged over gaps of at most
    ``max_gap_s``, and over gaps of at most ``merge_s`` where both sides look alike to the model. No event spans two
    successive answered frames that lie further apart than ``max_gap_s``. Frames without an answer (corrupt, skipped,
    ...) and frames that were set aside take no part: they neither vote nor end an event.

    Args:
        frames: in presentation order; ``probabilities`` float32 (labels,) or None.
        spec: the model's labels, operating points and event parameters.
        median_distance_s: median distance between frames in seconds of container time; None where unknown.
        time_kind: whether the file keeps the capsule's timing.
        capture_fps: frames per second at which the capsule recorded; None where unknown.
        role: of the labels; ``landmark`` serves ``landmarks``.
    """
    stream = EventStream(
        spec, median_distance_s=median_distance_s, time_kind=time_kind, capture_fps=capture_fps, role=role
    )
    return number_events([*stream.add(frames), *stream.finish()])


def number_events(events: Iterable[Event]) -> list[Event]:
    """Return the events of a recording sorted by start and then label, with ``id`` from 1."""
    found = sorted(events, key=_order)
    return [replace(event, id=number) for number, event in enumerate(found, start=1)]


def _order(event: Event) -> tuple[float, str, int]:
    return event.start_s, event.label, event.start_index
