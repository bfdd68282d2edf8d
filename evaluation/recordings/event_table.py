"""Count hit findings and false events at each point of a grid of event parameters and thresholds.

The counts are kept by recording. A fit on any choice of recordings, such as all but one, is then a sum over a part of
the table, and no event has to be found again. All recordings are handled as one long row of frames; no event crosses
the border between two of them. The events are those of ``runtime.events.find_runs``; a test compares the two.

K is the number of sets of event parameters, L of labels, T of thresholds, R of recordings, N of answered frames.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import numpy.typing as npt

from capsule_edge.runtime.events import ALIKE, SLACK_S, smooth
from capsule_edge.runtime.inference import EventParameters, ModelSpec

from .findings import findings
from .recording_scores import RecordingAnswers

__all__ = ["EventTable", "tabulate_events"]

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]
Counts = npt.NDArray[np.int32]
Bools = npt.NDArray[np.bool_]
# The first and the last position (inclusive) of each run or event, in order; runs do not overlap.
Runs = tuple[Indices, Indices]

# The runtime compares probabilities as they are written, with six decimals.
_DECIMALS = 6


@dataclass(frozen=True)
class EventTable:
    """Hit findings and false events by event parameters, label, threshold and recording.

    Attributes:
        keys: The L labels.
        rules: The K sets of event parameters.
        thresholds: float (L, T). The last of each label is the model's own; those before it rise.
        hits: int (K, L, T, R), the findings of the label that a right event of the label hits.
        right: int (K, L, T, R), the right events of the label.
        false: int (K, L, T, R), the other events of the label.
        findings: int (L, R), the findings of the label.
        frames: int (R,), the frames of each recording.
    """

    keys: tuple[str, ...]
    rules: tuple[EventParameters, ...]
    thresholds: Floats
    hits: Counts
    right: Counts
    false: Counts
    findings: Counts
    frames: Counts


def tabulate_events(
    spec: ModelSpec,
    recordings: Sequence[RecordingAnswers],
    rules: Sequence[EventParameters],
    thresholds: Sequence[float],
    keys: Sequence[str],
) -> EventTable:
    """Find the events at each point of a grid and count them.

    Args:
        spec: The model.
        recordings: The answers and the truth, at least one.
        rules: The sets of event parameters.
        thresholds: The thresholds of the grid, each in 0..1, rising.
        keys: The labels, each with an operating point.
    """
    steps = [(*thresholds, spec.operating_points[key].threshold) for key in keys]
    truths = [_LabelTruth.of(key, recordings) for key in keys]
    shape = (len(rules), len(keys), len(thresholds) + 1, len(recordings))
    hits, right, false = (np.zeros(shape, np.int32) for _ in range(3))
    for members in _groups(rules):
        row = _SmoothedFrames.of(recordings, rules[members[0]])
        for at, key in enumerate(keys):
            for step, threshold in enumerate(steps[at]):
                runs = row.runs(spec.keys.index(key), threshold, rules[members[0]].release)
                for rule in members:
                    found = row.rows_of(row.events(runs, rules[rule]))
                    place = rule, at, step
                    hits[place], right[place], false[place] = truths[at].count(*found)
    return EventTable(
        keys=tuple(keys),
        rules=tuple(rules),
        thresholds=np.array(steps),
        hits=hits,
        right=right,
        false=false,
        findings=np.array([truth.findings for truth in truths], np.int32),
        frames=np.array([len(answers.labels) for answers in recordings], np.int32),
    )


def _groups(rules: Sequence[EventParameters]) -> Iterator[list[int]]:
    """Yield groups of rules with the same runs; they differ in ``min_frames`` and ``merge_s`` alone."""

    def shared(at: int) -> tuple[float, float, float]:
        return rules[at].smoothing_s, rules[at].max_gap_s, rules[at].release

    for _, group in groupby(sorted(range(len(rules)), key=shared), key=shared):
        yield list(group)


@dataclass(frozen=True)
class _SmoothedFrames:
    """The answered frames of all recordings, one recording after the other.

    Attributes:
        smoothed: float (labels, N), the smoothed probabilities.
        total: float (N + 1, labels), cumulative sums of the probabilities.
        capture_s: float (N,), seconds of capture time within the recording.
        stretch: intp (N,), rising; a new stretch begins after a wide gap and with each recording.
        rows: intp (N,), the row of each frame among all frames of all recordings.
        recording: intp (N,), the recording of each frame.
        max_gap_s: The largest gap within a stretch and within an event, seconds of capture time.
    """

    smoothed: Floats
    total: Floats
    capture_s: Floats
    stretch: Indices
    rows: Indices
    recording: Indices
    max_gap_s: float

    @classmethod
    def of(cls, recordings: Sequence[RecordingAnswers], rule: EventParameters) -> _SmoothedFrames:
        """Smooth the answers of each recording, with ``smoothing_s`` and ``max_gap_s`` of a rule."""
        answered = [one.answered for one in recordings]
        offsets = np.cumsum([0, *(len(one.labels) for one in recordings)])[:-1]
        values = [one.probabilities[rows] for one, rows in zip(recordings, answered, strict=True)]
        times = [one.capture_s[rows] for one, rows in zip(recordings, answered, strict=True)]
        smoothed = [
            [smooth(c, s, window_s=rule.smoothing_s, max_gap_s=rule.max_gap_s) for c in v.T]
            for v, s in zip(values, times, strict=True)
        ]
        capture_s = np.concatenate(times)
        recording = np.repeat(np.arange(len(recordings)), [len(rows) for rows in answered])
        border = (np.diff(capture_s) > rule.max_gap_s + SLACK_S) | (np.diff(recording) > 0)
        total = np.cumsum(np.concatenate(values), axis=0)
        return cls(
            np.concatenate([np.array(columns) for columns in smoothed], axis=1),
            np.concatenate([np.zeros((1, total.shape[1])), total]),
            capture_s,
            np.concatenate([np.zeros(min(1, len(capture_s)), np.intp), np.cumsum(border)]),
            np.concatenate([rows + offset for rows, offset in zip(answered, offsets, strict=True)]),
            recording,
            rule.max_gap_s,
        )

    def runs(self, column: int, threshold: float, release: float) -> Runs:
        """Return the runs of one label, from a frame at the threshold to the last frame at the release level."""
        smoothed = self.smoothed[column]
        opened = np.flatnonzero(smoothed >= round(threshold, _DECIMALS))
        if not len(opened):
            return opened, opened
        held = np.flatnonzero(smoothed >= round(release * threshold, _DECIMALS))
        ends = np.flatnonzero((np.diff(held) > 1) | (np.diff(self.stretch[held]) > 0))
        begin, last = held[np.r_[0, ends + 1]], held[np.r_[ends, len(held) - 1]]
        at = np.searchsorted(opened, begin)
        first = opened[np.minimum(at, len(opened) - 1)]
        keep = (at < len(opened)) & (first <= last)
        return first[keep], last[keep]

    def events(self, runs: Runs, rule: EventParameters) -> Runs:
        """Return the events of one label: runs with enough frames, joined where they are near or alike."""
        keep = runs[1] - runs[0] + 1 >= rule.min_frames
        first, last = runs[0][keep], runs[1][keep]
        near = self._within(last[:-1], first[1:], rule.max_gap_s)
        first, last = _join(first, last, near)
        if not rule.merge_s or len(first) < 2:
            return first, last
        near = self._within(last[:-1], first[1:], rule.merge_s)
        return _join(first, last, self._alike(first, last, near))

    def rows_of(self, events: Runs) -> tuple[Indices, Indices, Indices]:
        """Return the first row, the last row and the recording of each event."""
        return self.rows[events[0]], self.rows[events[1]], self.recording[events[0]]

    def _within(self, before: Indices, after: Indices, most_s: float) -> Bools:
        """Return whether two positions are of one stretch and at most ``most_s`` apart."""
        near = self.capture_s[after] - self.capture_s[before] <= most_s + SLACK_S
        return np.asarray(near & (self.stretch[before] == self.stretch[after]))

    def _alike(self, first: Indices, last: Indices, near: Bools) -> Bools:
        """Return which events are joined to the one before: near, with mean answers that are alike."""
        joined = np.zeros(len(near), np.bool_)
        begin = first.copy()
        for at in np.flatnonzero(near).tolist():
            # The event before may itself have been joined: it then begins where that one begins.
            before = self._mean(begin[at], last[at])
            if np.minimum(before, self._mean(first[at + 1], last[at + 1])).sum() >= ALIKE:
                joined[at], begin[at + 1] = True, begin[at]
        return joined

    def _mean(self, first: int, last: int) -> Floats:
        return np.asarray((self.total[last + 1] - self.total[first]) / (last + 1 - first))


def _join(first: Indices, last: Indices, joined: Bools) -> Runs:
    """Join each run to the one before where ``joined`` (one fewer than runs) says so."""
    if not joined.any():
        return first, last
    return first[np.r_[True, ~joined]], last[np.r_[~joined, True]]


@dataclass(frozen=True)
class _LabelTruth:
    """The findings of one label in all recordings; rows count all frames of all recordings.

    Attributes:
        marked: intp (frames + 1,), cumulative count of the frames with the label.
        first, last: intp (F,), the first and the last row of each finding, in order.
        recording: intp (F,), the recording of each finding.
        recordings: The number of recordings.
    """

    marked: Indices
    first: Indices
    last: Indices
    recording: Indices
    recordings: int

    @classmethod
    def of(cls, key: str, recordings: Sequence[RecordingAnswers]) -> _LabelTruth:
        labels = np.concatenate([one.labels for one in recordings])
        spans, offset = [], 0
        for at, one in enumerate(recordings):
            true = [f for f in findings(one.labels.tolist()) if f.label == key]
            spans += [(finding.first + offset, finding.last + offset, at) for finding in true]
            offset += len(one.labels)
        first, last, recording = np.array(spans, np.intp).reshape(-1, 3).T
        return cls(np.r_[0, np.cumsum(labels == key)], first, last, recording, len(recordings))

    @property
    def findings(self) -> Indices:
        """The number of findings of each recording, intp (R,)."""
        return np.bincount(self.recording, minlength=self.recordings)

    def count(self, first: Indices, last: Indices, recording: Indices) -> tuple[Indices, Indices, Indices]:
        """Return hit findings, right and false events of each recording, intp (R,) each, as ``findings`` defines them.

        Args:
            first, last: The first and the last row of each event, in order.
            recording: The recording of each event.
        """
        is_right = 2 * (self.marked[last + 1] - self.marked[first]) >= last + 1 - first
        right, false = (np.bincount(recording[at], minlength=self.recordings) for at in (is_right, ~is_right))
        if not is_right.any() or not len(self.first):
            return np.zeros_like(right), right, false
        begin, end = first[is_right], last[is_right]
        at = np.searchsorted(end, self.first)
        hit = (at < len(end)) & (begin[np.minimum(at, len(end) - 1)] <= self.last)
        return np.bincount(self.recording[hit], minlength=self.recordings), right, false
