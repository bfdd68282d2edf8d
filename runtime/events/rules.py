"""The rules by which answers become events: smooth over capture time, threshold with hysteresis, merge.

A capsule takes 2 to 6 frames a second and its export plays them at 25 to 30. So what counts as "near" is decided in
capture time. Everything that leaves this module is container time: the position that a player shows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..inference import EventParameters, Label
from ..recording import TimeKind
from ..study import Event, FrameRecord, columns

__all__ = [
    "ALIKE",
    "SLACK_S",
    "Timeline",
    "capture_scale",
    "find_runs",
    "mean_over",
    "median_frame_distance",
    "merge_alike",
    "merge_near",
    "smooth",
    "vote_reach_s",
]

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]

# Times come from tick counts rounded to 1 us; divided by a frame distance of 1/30 s and a capture rate of 2 a
# second that is up to 15 us of capture time. A frame exactly on a window's edge must not fall on either side
# by such rounding, and no capsule takes two pictures within a millisecond.
SLACK_S = 1e-3

# Probabilities are compared as they are written, with six decimals: float32 holds 0.7 as 0.69999999, and a
# difference of running sums carries 1e-11. Neither may push a constant 0.7 below a threshold of 0.7.
_DECIMALS = 6

# Two stretches look alike to the model when their mean answers share this much probability. 1 is equal; two answers
# that agree on a label at .8 share at least .6, whatever the rest.
ALIKE = 0.8


def median_frame_distance(frames: Sequence[FrameRecord]) -> float | None:
    """Return the median distance between frames, seconds of container time; None with fewer than two times."""
    every = columns(frames)
    times = every.times_s[every.timed]
    return float(np.median(np.diff(times))) if len(times) > 1 else None


def capture_scale(
    events: EventParameters,
    *,
    median_distance_s: float | None,
    time_kind: TimeKind,
    capture_fps: float | None,
) -> float:
    """Return the seconds of capture time in one second of container time.

    For ``capture`` files container time is capture time, unless ``capture_fps`` says otherwise. A ``playback`` file of
    unknown capture rate is taken at ``events.assumed_capture_fps``. Without a frame distance (one frame) it is 1.
    """
    if not median_distance_s or (time_kind == "capture" and capture_fps is None):
        return 1.0
    return 1.0 / (median_distance_s * (capture_fps or events.assumed_capture_fps))


@dataclass(frozen=True)
class Timeline:
    """The answered frames of a recording in order, and the times of all frames.

    Attributes:
        indices: of the answered frames, (n,).
        times_s: of the answered frames, seconds of container time, (n,).
        probabilities: of the answered frames, (n, labels).
        every_s: times of the frames of any status, seconds of container time.
        scale: seconds of capture time in one second of container time.
        median_distance_s: median distance between frames, seconds of container time; None where unknown.
    """

    indices: npt.NDArray[np.int64]
    times_s: Floats
    probabilities: Floats
    every_s: Floats
    scale: float
    median_distance_s: float | None

    def event(self, label: Label, column: int, first: int, last: int, rule: EventParameters) -> Event:
        """Return the event of a label from position ``first`` to ``last``, inclusive; its ``id`` is 0.

        Args:
            label: of the event.
            column: of the label.
            first, last: positions among the answered frames.
            rule: the model's event parameters.
        """
        raw = self.probabilities[first : last + 1, column]
        peak = first + int(np.argmax(raw))
        return Event(
            id=0,
            label=label.key,
            role=label.role,
            start_index=int(self.indices[first]),
            end_index=int(self.indices[last]),
            start_s=float(self.times_s[first]),
            end_s=_end(
                float(self.times_s[last]),
                self.every_s,
                (rule.max_gap_s + SLACK_S) / self.scale,
                self.median_distance_s,
            ),
            peak_index=int(self.indices[peak]),
            peak_s=float(self.times_s[peak]),
            peak_p=float(self.probabilities[peak, column]),
            frames=last - first + 1,
        )


def smooth(values: Floats, capture_s: Floats, *, window_s: float, max_gap_s: float) -> Floats:
    """Return for each frame the mean of the values within a window centred on it.

    Args:
        values: one per frame.
        capture_s: ascending times of the frames, seconds of capture time.
        window_s: width of the window.
        max_gap_s: a frame further away has no vote, however wide the window.
    """
    total = np.concatenate(([0.0], np.cumsum(values)))
    return mean_over(total, capture_s, slice(None), vote_reach_s(window_s, max_gap_s))


def vote_reach_s(window_s: float, max_gap_s: float) -> float:
    """Return the distance in seconds of capture time up to which a frame votes for another."""
    return min(window_s / 2, max_gap_s) + SLACK_S


def mean_over(total: Floats, capture_s: Floats, span: slice, reach_s: float) -> Floats:
    """Return the mean of the values within ``reach_s`` of each frame of ``span``.

    Args:
        total: cumulative sums of the values, beginning with 0, (n + 1,) or (n + 1, columns).
        capture_s: times of the n frames.
    """
    first = np.searchsorted(capture_s, capture_s[span] - reach_s, side="left")
    after = np.searchsorted(capture_s, capture_s[span] + reach_s, side="right")
    votes = (after - first).reshape(-1, *[1] * (total.ndim - 1))
    return np.asarray(np.round((total[after] - total[first]) / votes, _DECIMALS), np.float64)


def find_runs(
    smoothed: Floats, probabilities: Floats, capture_s: Floats, *, threshold: float, rule: EventParameters
) -> Iterator[tuple[int, int]]:
    """First and last position, inclusive, of each event of one label.

    Args:
        smoothed: (n,) what ``smooth`` made of the label's probability.
        probabilities: (n, labels), by which two stretches look alike. capture_s: (n,), rising.
    """
    yield from merge_alike(merge_near(smoothed, capture_s, threshold, rule), probabilities, capture_s, rule)


def merge_near(
    smoothed: Floats, capture_s: Floats, threshold: float, rule: EventParameters
) -> Iterator[tuple[int, int]]:
    """Yield the runs of one label with enough frames, joined over gaps of ``max_gap_s``: first and last position."""
    stretch = _stretches(capture_s, rule)
    held = np.flatnonzero(smoothed >= round(rule.release * threshold, _DECIMALS))
    if not len(held):
        return
    # A new run starts where a frame between was below the release level or a gap too wide lies between.
    breaks = np.flatnonzero((np.diff(held) > 1) | (np.diff(stretch[held]) > 0)) + 1
    last = held[np.concatenate((breaks - 1, [len(held) - 1]))]
    begin = held[np.concatenate(([0], breaks))]
    opened: Indices = np.flatnonzero(smoothed >= round(threshold, _DECIMALS))
    at = np.searchsorted(opened, begin)
    has = at < len(opened)
    begin, last, at = begin[has], last[has], at[has]
    first = opened[at]
    keep = (first <= last) & (last - first + 1 >= rule.min_frames)
    pending: tuple[int, int] | None = None
    for start, end in zip(first[keep].tolist(), last[keep].tolist(), strict=True):
        if pending is None:
            pending = (start, end)
        elif (
            stretch[start] == stretch[pending[1]]
            and capture_s[start] - capture_s[pending[1]] <= rule.max_gap_s + SLACK_S
        ):
            pending = (pending[0], end)
        else:
            yield pending
            pending = (start, end)
    if pending is not None:
        yield pending


def merge_alike(
    runs: Iterable[tuple[int, int]], probabilities: Floats, capture_s: Floats, rule: EventParameters
) -> Iterator[tuple[int, int]]:
    """Yield the runs of one label, joined where they are near each other and the model's mean answers agree.

    When the capsule turns away from a lesion and back, a reader sees one event. A second lesion of the same kind
    usually differs in the probabilities of the other labels.
    """
    stretch = _stretches(capture_s, rule)
    pending: tuple[int, int] | None = None
    for start, end in runs:
        if pending is None:
            pending = (start, end)
            continue
        near = capture_s[start] - capture_s[pending[1]] <= rule.merge_s + SLACK_S
        if rule.merge_s and near and stretch[start] == stretch[pending[1]]:
            before = probabilities[pending[0] : pending[1] + 1].mean(axis=0)
            after = probabilities[start : end + 1].mean(axis=0)
            if np.minimum(before, after).sum() >= ALIKE:
                pending = (pending[0], end)
                continue
        yield pending
        pending = (start, end)
    if pending is not None:
        yield pending


def _stretches(capture_s: Floats, rule: EventParameters) -> Indices:
    """Return the number of each frame's stretch; a new stretch begins after a gap wider than ``max_gap_s``."""
    gap = np.diff(capture_s) > rule.max_gap_s + SLACK_S
    stretch: Indices = np.concatenate(([0], np.cumsum(gap)))
    return stretch


def _end(last_s: float, every_s: Floats, max_gap_s: float, median_distance_s: float | None) -> float:
    """Return the end of an event: the next frame of any status, or one median distance on if that is too far."""
    after = int(np.searchsorted(every_s, last_s, side="right"))
    if after < len(every_s) and every_s[after] - last_s <= max_gap_s:
        return float(every_s[after])
    return last_s + (median_distance_s or 0.0)
