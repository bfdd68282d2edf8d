"""Frames from a network camera or stream (RTSP, HTTP), as a ``Feed``: connects again when the connection is lost.

    feed = Live("rtsp://recorder/exam")
    for rgb in feed.read():
        ...

What is lost between two connections is not there to be counted: each loss is one None in its place, so the account
is not whole, and ``truncated`` says that nobody knows how much there was. A picture that the decoder reports as
damaged is None too, and so is what follows it up to the next key frame.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import av
import av.error
import numpy as np
import numpy.typing as npt
from av.container import InputContainer

from .colours import to_rgb
from .errors import InputError, UsageError
from .ffmpeg import MOST_PIXELS, open_decoder

__all__ = ["Live", "live_address"]

Frame = npt.NDArray[np.uint8]

_SCHEMES = ("rtsp", "rtsps", "http", "https")
# Of what a camera sends; no play lists or scripts, which name other hosts and files.
_FORMATS = "rtsp,rtp,mpjpeg,mjpeg,mpegts,mov,mp4,matroska,webm,flv,h264,hevc,image2pipe,jpeg_pipe,png_pipe"
_PROTOCOLS = "http,https,httpproxy,rtsp,rtp,srtp,udp,tcp,tls"
# Waits between attempts, s: doubled each time up to the longest.
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 30.0
_TIMEOUT_S = 10.0


def live_address(path: str | Path) -> str | None:
    """The address, where ``path`` is one; a ``Path`` has lost one of its slashes."""
    text = path.as_posix() if isinstance(path, Path) else path
    found = re.fullmatch(r"([A-Za-z]+):/{1,2}([^/].*)", text, re.DOTALL)
    return f"{found[1].lower()}://{found[2]}" if found and found[1].lower() in _SCHEMES else None


class Live:
    """One address. ``truncated`` is true once a connection was lost; ``connections`` counts those that were made.

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
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        found = live_address(address)
        if found is None:
            raise UsageError(f"{address!r} is no address of {', '.join(_SCHEMES)}")
        self.address = found
        self.truncated = False
        self.connections = 0
        self._patience_s, self._sleep, self._clock = patience_s, sleep, clock
        self._size: tuple[int, int] | None = None

    def read(self, file: BinaryIO | None = None) -> Iterator[Frame | None]:
        """Frames as they come, uint8 RGB HxWx3 of one size; None for one that is damaged and for each loss.

        Ends when nothing answers for ``patience_s``. Raises ``InputError`` when nothing ever did.
        """
        wait_s, since = _FIRST_WAIT_S, self._clock()
        while True:
            came = False
            try:
                for rgb in self._connect():
                    came = True
                    yield rgb
                reason = "it sent no picture"
            except (av.error.FFmpegError, OSError, ValueError) as error:
                reason = (getattr(error, "strerror", None) or str(error)).lower()
            if came:
                # The end of what a camera sends is a loss, whatever its cause.
                self.truncated = True
                yield None
                wait_s, since = _FIRST_WAIT_S, self._clock()
            left_s = self._patience_s - (self._clock() - since)
            if left_s <= 0:
                if not self.connections:
                    raise InputError(
                        f"{self.shown} cannot be read: {reason}",
                        hint="check the address, and that this machine reaches it",
                    )
                return
            self._sleep(min(wait_s, left_s))
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)

    def _connect(self) -> Iterator[Frame | None]:
        options = {"format_whitelist": _FORMATS, "protocol_whitelist": _PROTOCOLS}
        if self.address.startswith("rtsp"):
            options["rtsp_transport"] = "tcp"
        source = av.open(
            self.address,
            options={"max_pixels": str(MOST_PIXELS)},
            container_options=options,
            timeout=_TIMEOUT_S,
            metadata_errors="ignore",
        )
        with source:
            yield from self._decode(source)

    def _decode(self, source: InputContainer) -> Iterator[Frame | None]:
        if not source.streams.video:
            raise ValueError("it sends no video")
        stream = source.streams.video[0]
        decoder = open_decoder(Path(self.address), stream)
        broken, counted = True, False
        packets = source.demux(stream)
        lost: av.error.FFmpegError | None = None
        while True:
            try:
                packet = next(packets, None)
            except av.error.FFmpegError as error:
                packet, lost = None, error
            # The last packet is empty; with it, and when the connection is lost, comes what the decoder kept back.
            last = packet is None or not packet.size
            failed = packet is not None and packet.is_corrupt
            try:
                pictures = decoder.decode(None if last else packet)
            except av.error.FFmpegError:
                pictures, failed = [], not last
            if failed and not pictures:
                broken = True
                yield None
            for picture in pictures:
                if not counted:
                    self.connections, counted = self.connections + 1, True
                sound = not (failed or picture.is_corrupt)
                broken = not sound or (broken and not (picture.key_frame or decoder.codec.intra_only))
                size = picture.width, picture.height
                self._size = self._size or size
                yield None if broken or size != self._size else to_rgb(picture)
            if lost is not None:
                raise lost
            if last:
                return

    @property
    def shown(self) -> str:
        """The address without the name and password in it, on one line."""
        text = re.sub(r"//[^/@]*@", "//", self.address)
        return "".join(c if c.isprintable() else "?" for c in text)
