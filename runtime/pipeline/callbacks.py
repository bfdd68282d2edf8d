"""Tells whoever listens what becomes of a recording while it is read: each frame in order, each event as it closes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..events import EventStream, Gallery
from ..study import Event, FrameRecord, FrameTable

__all__ = ["Follower"]

# Frames after which it is looked for events, whatever the batches are: so the order of what is told is always the
# same. At 2 to 6 a second, 3 to 8 s of an examination.
_STEP = 16


class Follower:
    """Hands on the frames of ``records``, which are settled from the first on; called by the reading thread.

    ``gallery`` is told of each event, and then what it need not keep for those that are to come.
    """

    def __init__(
        self,
        records: FrameTable,
        *,
        on_frame: Callable[[FrameRecord], None] | None,
        on_event: Callable[[Event], None] | None,
        events: EventStream,
        gallery: Gallery,
    ) -> None:
        self._records = records
        self._on_frame, self._on_event = on_frame, on_event
        self._events, self._gallery = events, gallery
        self._told = self._looked_at = 0

    def settle(self, after: int) -> None:
        """The frames before index ``after`` are what they will be."""
        while self._told < after:
            span = slice(self._told, min(after, self._looked_at + _STEP))
            if self._on_frame is not None:
                for frame in self._records[span]:
                    self._on_frame(frame)
            self._told = span.stop
            if self._told == self._looked_at + _STEP:
                self._look_for_events()

    def finish(self) -> None:
        """All frames are."""
        self.settle(len(self._records))
        self._look_for_events()
        self._tell(self._events.finish())

    def _look_for_events(self) -> None:
        self._tell(self._events.take(self._records.columns(slice(self._looked_at, self._told))))
        self._looked_at = self._told
        self._gallery.release(self._events)

    def _tell(self, events: Sequence[Event]) -> None:
        for event in events:
            self._gallery.keep(event)
            if self._on_event is not None:
                self._on_event(event)
