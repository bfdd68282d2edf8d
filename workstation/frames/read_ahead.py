"""Prepare the frames beside the one that is looked at, in one thread that gives way to every reader.

The page asks for one frame after the other. While it paints one, the thread decodes and encodes the neighbours, so the
next step finds them in the cache. A new request replaces the waiting one of the same recording.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Protocol

__all__ = ["Neighbourhood", "ReadAhead"]

_log = logging.getLogger(__name__)
# Frames that are encoded ahead in the direction of travel. One is encoded behind.
_ENCODED = 4
# This far ahead, frames are decoded: at 40 frames a second that is 0.6 s, longer than decoding a key frame distance.
_DECODED = 24


class Preparing(Protocol):
    """A source of frames that can prepare one."""

    def prepare(
        self, index: int, size: int | None, stopped: Callable[[], bool], *, encode: bool = True
    ) -> None:
        """Decode a frame, and encode it for the page, unless it is done or ``stopped()`` returns True."""
        ...


@dataclass(frozen=True, slots=True)
class Neighbourhood:
    """The place that a client looks at: a frame, the size of its picture, and the direction of travel (1, -1, or 0)."""

    index: int
    size: int | None
    direction: int

    @property
    def encoded(self) -> list[int]:
        """Indices of the frames to encode, the most urgent first."""
        if not self.direction:
            return [self.index + 1, self.index - 1]
        ahead = [self.index + self.direction * step for step in range(1, _ENCODED + 1)]
        return [ahead[0], self.index - self.direction, *ahead[1:]]

    @property
    def decoded(self) -> list[int]:
        """Indices of the frames to decode only."""
        return [self.index + self.direction * _DECODED] if self.direction else []


class ReadAhead:
    """One thread that prepares neighbours for any number of sources. Close it when it is done."""

    def __init__(self) -> None:
        self._asked: dict[Hashable, tuple[Preparing, Neighbourhood]] = {}
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._busy: Hashable = None

    def ask(self, key: Hashable, source: Preparing, wanted: Neighbourhood) -> None:
        """Prepare the neighbours of a frame soon; replaces what the source asked for before."""
        with self._changed:
            if self._closed:
                return
            self._asked.pop(key, None)
            self._asked[key] = source, wanted
            if self._thread is None:
                # A daemon: it keeps no program from ending.
                self._thread = threading.Thread(
                    target=self._work, name="capsule-edge-read-ahead", daemon=True
                )
                self._thread.start()
            self._changed.notify_all()

    def forget(self, key: Hashable) -> None:
        """Drop what a source asked for, and wait until the thread has let go of the source."""
        with self._changed:
            self._asked.pop(key, None)
            if threading.current_thread() is not self._thread:
                self._changed.wait_for(lambda: self._busy != key)

    def wait(self, timeout_s: float) -> bool:
        """Wait until nothing is left to prepare. Return whether that came within the time."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._asked and self._busy is None, timeout_s)

    def close(self) -> None:
        """End the thread and wait for its end. A second call does nothing."""
        with self._changed:
            self._closed = True
            self._asked.clear()
            self._changed.notify_all()
            thread, self._thread = self._thread, None
        if thread is not None:
            thread.join()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._busy = None
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._asked or self._closed)
                if self._closed:
                    return
                # The newest first: that is the one being looked at.
                key, (source, wanted) = self._asked.popitem()
                self._busy = key
            try:
                self._prepare(key, source, wanted)
            except Exception:
                # Whoever asks for that frame gets the error. The thread has to live on for the other recordings.
                _log.debug("frame %d was not prepared", wanted.index, exc_info=True)

    def _prepare(self, key: Hashable, source: Preparing, wanted: Neighbourhood) -> None:
        def stopped() -> bool:
            return self._closed or key in self._asked

        for index in wanted.encoded:
            if not stopped():
                source.prepare(index, wanted.size, stopped)
        for index in wanted.decoded:
            if not stopped():
                source.prepare(index, wanted.size, stopped, encode=False)
