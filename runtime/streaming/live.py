"""Frames from a network camera or stream (RTSP, HTTP), as a ``Feed``: connects again when the connection is lost.

    feed = Live("rtsp://recorder/exam")
    for rgb in feed.read():
        ...

A camera has no end but the one that ``stop`` makes. What is lost between two connections to it is not there to be
counted: each loss is one None in its place, so the account is not whole, and ``truncated`` says that nobody knows how
much there was. A recording that says how long it is (a file over HTTP) ends when it ends; where the connection to it is
lost, the next goes on at the picture at which it stopped, and nothing is lost.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import BinaryIO

import av.error
import numpy as np
import numpy.typing as npt

from ..errors import InputError, Interrupted, UsageError
from ..pipeline import follow
from .connections import Connection, Length

__all__ = ["Live", "live_address"]

Frame = npt.NDArray[np.uint8]

_SCHEMES = ("rtsp", "rtsps", "http", "https")
# Waits between attempts, s: doubled each time up to the longest.
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 30.0
# In what steps a wait is broken off when nobody reads any more, s.
_STEP_S = 0.2
# Frames that may lie ready, unread.
_AHEAD = 4


def live_address(path: str | Path) -> str | None:
    """The address, where ``path`` is one; a ``Path`` has lost one of its slashes."""
    text = path.as_posix() if isinstance(path, Path) else path
    found = re.fullmatch(r"([A-Za-z]+):/{1,2}([^/].*)", text, re.DOTALL)
    return f"{found[1].lower()}://{found[2]}" if found and found[1].lower() in _SCHEMES else None


class Live:
    """One address, read once. ``connections`` counts those that sent pictures.

    ``truncated`` is None while nothing is known to be lost, true once something is (a connection to a camera, or the
    rest of a recording), false for a recording that was read to its end.

    Args:
        patience_s: how long it is tried to connect, or to connect again, before it is taken as ended.
        sleep, clock: seconds; to be replaced by tests.

    Raises ``UsageError`` for what is no RTSP or HTTP address.
    """

    def __init__(
        self,
        address: str,
        *,
        patience_s: float = 60.0,
        sleep: Callable[[float], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        found = live_address(address)
        if found is None:
            raise UsageError(f"{address!r} is no address of {', '.join(_SCHEMES)}")
        self.address = found
        self.truncated: bool | None = None
        self.connections = 0
        self.stopped = False
        self._patience_s, self._sleep, self._clock = patience_s, sleep or self._nap, clock
        # The recording that is read, where it is one, and how much of it was handed on.
        self._length: Length | None = None
        self._given = 0
        self._ended = False

    def stop(self) -> None:
        """End as a camera does: what has come is still handed on. For another thread or the handler of a signal."""
        self.stopped = True

    def read(self, file: BinaryIO | None = None) -> Iterator[Frame | None]:
        """Frames as they come, uint8 RGB HxWx3 of one size; None for one that is damaged and for each loss.

        Ends with a recording's end, within a moment of ``stop``, or when nothing answers for ``patience_s``. Raises
        ``InputError`` when nothing ever did, and ``Interrupted`` when it was stopped before anything came.
        """
        shape: tuple[int, ...] | None = None
        # In a thread of its own: FFmpeg waits for a silent camera for seconds, and hears nobody meanwhile.
        with closing(follow(self._items(), stopped=lambda: self.stopped, depth=_AHEAD, name="live")) as items:
            for rgb in items:
                if rgb is not None:
                    shape = shape or rgb.shape
                yield rgb if rgb is None or rgb.shape == shape else None
        if self.stopped and not self.connections:
            raise Interrupted(f"stopped before a frame came from {self.shown}")

    def _items(self) -> Iterator[Frame | None]:
        wait_s, since = _FIRST_WAIT_S, self._clock()
        while not self.stopped:
            came, reason = False, "it sent no picture"
            try:
                for rgb in self._connect():
                    came = True
                    yield rgb
            except (av.error.FFmpegError, OSError, ValueError) as error:
                reason = (getattr(error, "strerror", None) or str(error)).lower()
            if self._ended:
                self.truncated = self.truncated or False
                return
            if self.stopped:
                break
            if came:
                if self._length is None:
                    # The end of what a camera sends is a loss, whatever its cause.
                    self.truncated = True
                    yield None
                wait_s, since = _FIRST_WAIT_S, self._clock()
            left_s = self._patience_s - (self._clock() - since)
            if left_s <= 0:
                if not self.connections:
                    raise InputError(
                        f"{self.shown} cannot be read: {reason}",
                        hint="check the address, and that this machine reaches it; an MP4 whose index lies at its end "
                        "needs a server that sends ranges",
                    )
                break
            self._sleep(min(wait_s, left_s))
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
        if self._given:
            # The rest of a recording.
            self.truncated = True
            yield None

    def _connect(self) -> Iterator[Frame | None]:
        """What one connection brings that is new."""
        with Connection(self.address) as connection:
            if self._given and connection.length != self._length:
                self._given, self.truncated = 0, True
                yield None
            self._length, counted = connection.length, False
            for place, rgb in enumerate(connection.pictures()):
                if connection.answered and not counted:
                    self.connections, counted = self.connections + 1, True
                if self._length is None:
                    yield rgb
                elif place >= self._given:
                    yield rgb
                    self._given = place + 1
            self._ended = connection.ended
            if connection.cut:
                self.truncated = True
                yield None

    def _nap(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self.stopped and (left_s := until - time.monotonic()) > 0:
            time.sleep(min(_STEP_S, left_s))

    @property
    def shown(self) -> str:
        """The address without the name and password in it, on one line."""
        text = re.sub(r"//[^/@]*@", "//", self.address)
        return "".join(c if c.isprintable() else "?" for c in text)
