"""Hold the frames of a recording as columns, in a tenth of the memory of ``FrameRecord`` objects.

An examination has 57,600 frames and more. ``FrameTable`` is a sequence of ``FrameRecord`` that makes each record when
it is asked for. ``columns`` returns the columns of a ``FrameTable`` or of any other sequence of records.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from .records import STATUSES, UNFAMILIAR, FrameRecord, Status

__all__ = ["Columns", "FrameTable", "columns"]

_CODES = {status: code for code, status in enumerate(STATUSES)}


@dataclass(frozen=True)
class Columns:
    """Arrays with one entry per frame.

    Attributes:
        indices: index of each frame, int64 (frames,).
        times_s: container time in seconds, float64 (frames,); NaN for a frame without a time.
        probabilities: float32 (frames, labels); meaningless for frames that are not ``given``.
        given: bool (frames,), whether the frame has probabilities.
        status: int8 (frames,), index into ``STATUSES``.
        set_aside: bool (frames,), whether the frame's detail is ``unfamiliar``.
    """

    indices: npt.NDArray[np.int64]
    times_s: npt.NDArray[np.float64]
    probabilities: npt.NDArray[np.float32]
    given: npt.NDArray[np.bool_]
    status: npt.NDArray[np.int8]
    set_aside: npt.NDArray[np.bool_]

    @property
    def timed(self) -> npt.NDArray[np.bool_]:
        """True where a frame has a time, bool (frames,)."""
        return ~np.isnan(self.times_s)

    @property
    def answered(self) -> npt.NDArray[np.bool_]:
        """True where a frame has a time and finite probabilities, bool (frames,)."""
        return self.timed & self.given & np.isfinite(self.probabilities).all(axis=1)

    @property
    def evidence(self) -> npt.NDArray[np.bool_]:
        """True where a frame is answered and not set aside, bool (frames,); only such frames can make events."""
        return self.answered & ~self.set_aside


class FrameTable(Sequence[FrameRecord]):
    """The frames 0 .. ``count`` - 1 of a container, as a sequence of ``FrameRecord``.

    Args:
        count: number of frames.
        labels: number of labels of the model.
        pts: presentation times of the first frames, ticks of the stream's time base. The frames after them have none.
        times_s: container time of the same frames, seconds.
        statuses: int8 (count,), the first status of each frame as an index into ``STATUSES``; ``settle`` changes it.
    """

    def __init__(
        self,
        *,
        count: int,
        labels: int,
        pts: Sequence[int],
        times_s: Sequence[float],
        statuses: npt.NDArray[np.int8],
    ) -> None:
        self._pts, self._times_s = pts, times_s
        self._status = statuses
        self._duplicate_of = np.full(count, -1, np.int64)
        self._details = ["", UNFAMILIAR]
        self._detail = np.zeros(count, np.int8)
        self._given = np.zeros(count, np.bool_)
        self._probabilities = np.zeros((count, labels), np.float32)

    def __len__(self) -> int:
        return len(self._status)

    @overload
    def __getitem__(self, at: int) -> FrameRecord: ...
    @overload
    def __getitem__(self, at: slice) -> list[FrameRecord]: ...
    def __getitem__(self, at: int | slice) -> FrameRecord | list[FrameRecord]:
        if isinstance(at, slice):
            return [self[place] for place in range(*at.indices(len(self)))]
        index = range(len(self))[at]
        shown = index < len(self._pts)
        twin = int(self._duplicate_of[index])
        return FrameRecord(
            index,
            STATUSES[self._status[index]],
            self._pts[index] if shown else None,
            self._times_s[index] if shown else None,
            None if twin < 0 else twin,
            self._details[self._detail[index]],
            self._probabilities[index] if self._given[index] else None,
        )

    def __iter__(self) -> Iterator[FrameRecord]:
        return (self[at] for at in range(len(self)))

    def settle(
        self,
        index: int,
        status: Status,
        *,
        detail: str = "",
        duplicate_of: int | None = None,
        probabilities: npt.NDArray[np.float32] | None = None,
    ) -> None:
        """Set the result of a frame.

        Args:
            index: index of the frame.
            status: final status of the frame.
            detail: a detail of the status, such as ``damaged``.
            duplicate_of: index of the frame whose answer a duplicate takes.
            probabilities: float32 (labels,), 0..1; None for a frame without an answer.
        """
        self._status[index] = _CODES[status]
        if detail not in self._details:
            self._details.append(detail)
        self._detail[index] = self._details.index(detail)
        self._duplicate_of[index] = -1 if duplicate_of is None else duplicate_of
        self._given[index] = probabilities is not None
        if probabilities is not None:
            self._probabilities[index] = probabilities

    def time_s(self, index: int) -> float:
        """Return the container time in seconds of a frame that has one."""
        return self._times_s[index]

    def columns(self, span: slice = slice(None)) -> Columns:
        """Return the columns of the frames from ``span.start`` up to ``span.stop``. Do not write to them."""
        begin, after, _ = span.indices(len(self))
        times_s = np.full(after - begin, np.nan)
        shown = self._times_s[begin:after]
        times_s[: len(shown)] = shown
        return Columns(
            np.arange(begin, after, dtype=np.int64),
            times_s,
            self._probabilities[begin:after],
            self._given[begin:after],
            self._status[begin:after],
            self._detail[begin:after] == self._details.index(UNFAMILIAR),
        )


def columns(frames: Sequence[FrameRecord]) -> Columns:
    """Return the columns of a sequence of frames.

    Those of a ``FrameTable`` are its own arrays, not copies. Do not write to them.
    """
    if isinstance(frames, FrameTable):
        return frames.columns()
    count = len(frames)
    labels = next((len(frame.probabilities) for frame in frames if frame.probabilities is not None), 0)
    probabilities = np.zeros((count, labels), np.float32)
    given = np.zeros(count, np.bool_)
    for at, frame in enumerate(frames):
        if frame.probabilities is not None:
            probabilities[at], given[at] = frame.probabilities, True
    times_s: Any = [np.nan if frame.time_s is None else frame.time_s for frame in frames]
    return Columns(
        np.array([frame.index for frame in frames], np.int64),
        np.array(times_s, np.float64),
        probabilities,
        given,
        np.array([_CODES[frame.status] for frame in frames], np.int8),
        np.array([frame.detail == UNFAMILIAR for frame in frames], np.bool_),
    )
