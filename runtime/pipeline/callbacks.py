"""Call the user's callbacks while a recording is read: each frame in order, each event when it closes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..events import EventStream, PeakFrames, number_events
from ..study import Event, FrameRecord, FrameTable

__all__ = ["Callbacks"]

# Search for events after this many frames, whatever the batch size: so the order of the calls is always the same. At 2
# to 6 frames a second these are 3 to 8 s of an examination.
_STEP = 16


class Callbacks:
    """Report the frames of a recording and its events, in order. Called by the reading thread."""

    def __init__(
        self,
        records: FrameTable,
        *,
        on_frame: Callable[[FrameRecord], None] | None,
        on_event: Callable[[Event], None] | None,
        stream: EventStream,
        peaks: PeakFrames,
    ) -> None:
        """Args:
        records: of all frames; the reader fills them from the first on.
        on_frame: called with each frame.
        on_event: called with each event when it closes; its ``id`` is 0.
        stream: finds the events.
        peaks: keeps the peak frame of each event, and drops candidates that can no longer be one.
        """
        self._records = records
        self._on_frame, self._on_event = on_frame, on_event
        self._stream, self._peaks = stream, peaks
        self._closed: list[Event] = []
        self._reported = self._searched = 0

    @property
    def events(self) -> list[Event]:
        """The events that have closed, sorted and numbered."""
        return number_events(self._closed)

    def settle(self, after: int) -> None:
        """Report every frame before index ``after``; their status is final.

        Args:
            after: index of the first frame that is not settled.
        """
        while self._reported < after:
            span = slice(self._reported, min(after, self._searched + _STEP))
            if self._on_frame is not None:
                for frame in self._records[span]:
                    self._on_frame(frame)
            self._reported = span.stop
            if self._reported == self._searched + _STEP:
                self._search()

    def finish(self) -> None:
        """Report the frames and events that are still pending. Call once, after the last frame."""
        self.settle(len(self._records))
        self._search()
        self._report(self._stream.finish())

    def _search(self) -> None:
        self._report(self._stream.take(self._records.columns(slice(self._searched, self._reported))))
        self._searched = self._reported
        self._peaks.release(self._stream)

    def _report(self, events: Sequence[Event]) -> None:
        for event in events:
            self._closed.append(event)
            self._peaks.keep(event)
            if self._on_event is not None:
                self._on_event(event)
