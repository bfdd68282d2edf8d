"""Choose the frames of an event's strip: small pictures that show how the event begins, passes and ends.

A strip has 8 to 12 pictures in the order of the recording, with the event's peak among them. An event with few frames
lends some from before and after it; a longer one is divided into equal parts, and each part gives one frame.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..study import STATUSES, Columns, Event

__all__ = ["MOST_IN_STRIP", "StripChooser"]

# An event gives this many pictures if it has more frames than ``MOST_IN_STRIP``.
_PICTURES = 10
MOST_IN_STRIP = 12
# Frames before and after an event that belong to its strip: they show what the event is compared with.
_CONTEXT = 2
# A short event takes further frames around it until the strip has this many.
_FEWEST = 8

Indices = npt.NDArray[np.int64]


class StripChooser:
    """Choose the frames of the strips of one recording.

    Args:
        every: the columns of all frames of the recording.
        gap_s: frames further apart than this, seconds of container time, are not shown in one strip unless the event
            itself spans the gap.
        cost: how many pictures have to be decoded to show each frame, by its index, int64.
    """

    def __init__(self, every: Columns, *, gap_s: float, cost: Indices) -> None:
        shown = np.isin(every.status, [STATUSES.index("classified"), STATUSES.index("duplicate")])
        shown &= every.timed
        self._sound: Indices = every.indices[shown]
        self._times_s = every.times_s[shown]
        self._gap_s, self._cost = gap_s, cost

    def choose(self, event: Event) -> list[int]:
        """Return the indices of the frames of an event's strip, ascending.

        Only sound frames are chosen. The result has fewer than 8 where the recording has no more near the event, and
        is empty if the event has no sound frame.
        """
        first, last = np.searchsorted(self._sound, (event.start_index, event.end_index + 1)).tolist()
        if first == last:
            return []
        first, last = self._widen(first, last)
        span = self._sound[first:last]
        if len(span) <= MOST_IN_STRIP:
            chosen: list[int] = span.tolist()
            return chosen
        return [self._pick(part, event.peak_index) for part in np.array_split(span, _PICTURES)]

    def _widen(self, first: int, last: int) -> tuple[int, int]:
        """Return the range of an event's sound frames, half-open, widened by frames around it, in turns."""
        taken = 0
        while taken < 2 * _CONTEXT or last - first < _FEWEST:
            before = first > 0 and self._near(first - 1)
            after = last < len(self._sound) and self._near(last - 1)
            if not (before or after):
                break
            if before and (taken % 2 == 0 or not after):
                first -= 1
            else:
                last += 1
            taken += 1
        return first, last

    def _near(self, at: int) -> bool:
        """Return whether the sound frame number ``at`` and the next one lie close together."""
        return bool(self._times_s[at + 1] - self._times_s[at] <= self._gap_s)

    def _pick(self, part: Indices, peak: int) -> int:
        """Return the peak if the part has it, else the frame that takes the fewest pictures to decode."""
        return peak if peak in part else int(part[np.argmin(self._cost[part])])
