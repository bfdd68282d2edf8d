"""Read frames from a network camera or stream (RTSP, HTTP) as a ``Feed``, and reconnect when the connection is lost.

    feed = Live("rtsp://recorder/exam")
    for rgb in feed.read():
        ...

A source that announces no length is taken for a camera. Its feed ends when ``stop`` is called, or when nothing
answers for ``patience_s``. Pictures lost between two connections to a camera cannot be counted. Each such loss yields
one None and sets ``truncated`` to True, so the ledger is not ``whole``.

A source that announces its length, such as a file over HTTP, is taken for a recording. Its feed ends with its last
picture. When the connection is lost, the next one continues at the picture where the last one stopped, and nothing
is lost.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import BinaryIO

import av.error

from ..errors import InputError, Interrupted, UsageError
from ..pipeline import follow
from .connections import Connection, Length
from .pipe_formats import RgbArray

__all__ = ["Live", "live_address"]

_SCHEMES = ("rtsp", "rtsps", "http", "https")
# Waits between two attempts to connect, s: the first, doubled each time up to the longest.
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 30.0
# A wait checks this often whether the feed was stopped, s.
_STEP_S = 0.2
# Decoded frames that may wait to be read.
_AHEAD = 4


def live_address(path: str | Path) -> str | None:
    """Return the network address in ``path``, or None if ``path`` is no such address.

    ``Path`` shortens the "//" of an address to "/". Both forms are accepted.

    Example:
        >>> live_address(Path("RTSP://recorder/exam"))
        'rtsp://recorder/exam'
    """
    text = path.as_posix() if isinstance(path, Path) else path
    found = re.fullmatch(r"([A-Za-z]+):/{1,2}([^/].*)", text, re.DOTALL)
    return f"{found[1].lower()}://{found[2]}" if found and found[1].lower() in _SCHEMES else None


class Live:
    """Read one address, once.

    Args:
        address: an RTSP or HTTP address.
        patience_s: seconds to keep trying to connect, or to reconnect, before the source counts as ended.
        sleep: waits so many seconds (for tests).
        clock: returns a time in seconds (for tests).

    Attributes:
        connections: number of connections that sent pictures.
        patience_s: as given; it may be changed while the feed is read.
        stopped: whether ``stop`` was called.
        truncated: True once pictures were lost: a camera's connection broke, or a part of a recording is missing.
            False for a recording that was read to its end. None while neither is known.

    Raises:
        UsageError: ``address`` is not an RTSP or HTTP address.
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
            raise UsageError(f"{address!r} is no address that begins with {', '.join(_SCHEMES)}")
        self.address = found
        self.truncated: bool | None = None
        self.connections = 0
        self.stopped = False
        self.patience_s, self._sleep, self._clock = patience_s, sleep or self._nap, clock
        # The announced length of a recording (None for a camera), and the number of its pictures that were yielded.
        self._length: Length | None = None
        self._given = 0
        self._ended = False

    def stop(self) -> None:
        """End the feed; frames that have arrived are still yielded. Safe from another thread or a signal handler."""
        self.stopped = True

    def read(self, file: BinaryIO | None = None) -> Iterator[RgbArray | None]:
        """Yield frames as they arrive, uint8 RGB (height, width, 3) of one size; None for a damaged frame and a loss.

        Ends at the end of a recording, soon after ``stop``, or when nothing answers for ``patience_s``.

        Args:
            file: ignored; it makes this a ``Feed``.

        Raises:
            InputError: nothing ever answered.
            Interrupted: ``stop`` was called before a frame came.
        """
        shape: tuple[int, ...] | None = None
        # In its own thread: FFmpeg waits seconds for a silent camera and cannot be stopped meanwhile.
        with closing(follow(self._items(), stopped=lambda: self.stopped, depth=_AHEAD, name="live")) as items:
            for rgb in items:
                if rgb is not None:
                    shape = shape or rgb.shape
                yield rgb if rgb is None or rgb.shape == shape else None
        if self.stopped and not self.connections:
            raise Interrupted(f"stopped before a frame came from {self.shown}")

    def _items(self) -> Iterator[RgbArray | None]:
        """Connect again and again until the source has ended, and yield what the connections bring."""
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
                    # A camera that stops sending is a loss, whatever the cause.
                    self.truncated = True
                    yield None
                wait_s, since = _FIRST_WAIT_S, self._clock()
            left_s = self.patience_s - (self._clock() - since)
            if left_s <= 0:
                self._give_up(reason)
                break
            self._sleep(min(wait_s, left_s))
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
        if self._given:
            # The rest of a recording is lost.
            self.truncated = True
            yield None

    def _give_up(self, reason: str) -> None:
        """Raise ``InputError`` if no connection ever sent a picture."""
        if not self.connections:
            raise InputError(
                f"{self.shown} cannot be read: {reason}",
                hint="check the address, and that this machine reaches it; an MP4 whose index lies at its end "
                "needs a server that answers HTTP range requests",
            )

    def _connect(self) -> Iterator[RgbArray | None]:
        """Open one connection and yield its pictures that were not yielded before."""
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
        """The address without user name and password, on one line."""
        text = re.sub(r"//[^/@]*@", "//", self.address)
        return "".join(c if c.isprintable() else "?" for c in text)
