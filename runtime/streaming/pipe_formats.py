"""Read frames from a pipe: raw RGB of a given size, or JPEG pictures one after the other (MJPEG).

    feed = parse_feed("raw:336x336")
    for rgb in feed.read(sys.stdin.buffer):
        ...

No loss is silent. A damaged or cut-off picture is yielded as None, and so are bytes between two pictures.
``truncated`` says whether the pipe ended inside a frame.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import BinaryIO, Protocol

import av.error
import numpy as np
import numpy.typing as npt
from av.codec.context import CodecContext, ThreadType
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext

from ..errors import InputError, UsageError
from ..recording import MOST_PIXELS, to_rgb

__all__ = ["Feed", "Mjpeg", "Raw", "RgbArray", "parse_feed", "split_pictures"]

# uint8 RGB (height, width, 3).
RgbArray = npt.NDArray[np.uint8]

_CHUNK = 1 << 16
# A picture of MOST_PIXELS has fewer bytes. A longer one has lost its end marker.
_MOST_BYTES = 1 << 26

_SOI, _EOI, _SOS = 0xD8, 0xD9, 0xDA
# Markers without a length (ITU-T T.81, B.1.1.3): TEM and the restarts.
_ALONE = {0x01, *range(0xD0, 0xD8)}


class Feed(Protocol):
    """Turn the bytes of a pipe into frames."""

    @property
    def truncated(self) -> bool | None:
        """True if the end cut a frame off, so that frames are lost; None if that is not known."""
        ...

    def read(self, file: BinaryIO) -> Iterator[RgbArray | None]:
        """Yield frames as they arrive, uint8 RGB (height, width, 3) of one size; None for a damaged or cut-off frame.

        Raises:
            InputError: the first bytes are not a frame.
        """
        ...


def parse_feed(text: str) -> Feed:
    """Return the feed that a text names.

    Args:
        text: ``raw:WIDTHxHEIGHT`` (uint8 RGB, row by row) or ``mjpeg``.

    Raises:
        UsageError: ``text`` is anything else, or the frames have too many pixels.

    Example:
        >>> parse_feed("raw:336x336").width
        336
    """
    if text == "mjpeg":
        return Mjpeg()
    sides = re.fullmatch(r"raw:([1-9]\d{0,5})x([1-9]\d{0,5})", text)
    if sides is None or int(sides[1]) * int(sides[2]) > MOST_PIXELS:
        raise UsageError(
            f"frames are {text!r}, allowed are mjpeg and raw:WIDTHxHEIGHT (uint8 RGB) of at most {MOST_PIXELS} pixels",
            hint="for 336 x 336 pixels: raw:336x336",
        )
    return Raw(int(sides[1]), int(sides[2]))


class Raw:
    """Read raw frames of one size, with nothing between them."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.truncated = False

    def read(self, file: BinaryIO) -> Iterator[RgbArray | None]:
        size = self.width * self.height * 3
        while data := _read_whole(file, size):
            if len(data) < size:
                self.truncated = True
                yield None
                return
            yield np.frombuffer(data, np.uint8).reshape(self.height, self.width, 3)


class Mjpeg:
    """Read JPEG pictures one after the other. All have the first one's size; another size counts as damage."""

    def __init__(self) -> None:
        self.truncated = False

    def read(self, file: BinaryIO) -> Iterator[RgbArray | None]:
        decoder = CodecContext.create("mjpeg", "r")
        assert isinstance(decoder, VideoCodecContext)
        decoder.thread_type, decoder.thread_count = ThreadType.NONE, 1
        # "explode" as for recordings: a single picture reports its damage in no other way.
        decoder.options = {
            "err_detect": "crccheck+bitstream+buffer+careful+explode",
            "max_pixels": str(MOST_PIXELS),
        }
        shape: tuple[int, ...] | None = None
        for data, whole in split_pictures(file):
            self.truncated = whole is None
            rgb = _decode(decoder, data) if whole else None
            if rgb is not None:
                shape = shape or rgb.shape
                rgb = rgb if rgb.shape == shape else None
            yield rgb


def split_pictures(file: BinaryIO) -> Iterator[tuple[bytes, bool | None]]:
    """Split the bytes of a pipe into JPEG pictures, by their markers (ITU-T T.81).

    A thumbnail inside a header does not end a picture.

    Yields:
        The bytes of a picture, and whether it is complete: True, False for a damaged picture or bytes that belong to
        no picture, None for a picture that the end of the pipe cuts off.

    Raises:
        InputError: the pipe does not begin with a picture.
    """
    window = _Window(file)
    if window.has(1) and not window.begins_picture():
        raise InputError(
            f"stdin begins with {window.peek(2).hex(' ')}, a JPEG picture begins with ff d8",
            hint="send JPEG pictures one after the other, as 'ffmpeg -f mjpeg' writes them",
        )
    while window.has(1):
        if not window.begins_picture():
            window.seek_picture(0)
            yield window.take(), False
            continue
        whole = _measure(window)
        if whole is False:
            window.seek_picture(2)
        yield window.take(), whole


def _measure(window: _Window) -> bool | None:
    """Move behind the picture that begins at 0. Return False if it is damaged, None if the end cuts it off."""
    window.at = 2
    while window.at < _MOST_BYTES:
        if not window.has(2):
            return None
        first, marker = window.peek(2)
        if first != 0xFF:
            return False
        if marker == 0xFF:  # fill
            window.at += 1
            continue
        if marker == _SOI:
            return False
        window.at += 2
        if marker == _EOI:
            return True
        if marker in _ALONE:
            continue
        if not window.has(2):
            return None
        length = int.from_bytes(window.peek(2), "big")
        if length < 2:
            return False
        if not window.has(length):
            return None
        window.at += length
        if marker == _SOS and not window.skip_scan():
            return None
    return False


class _Window:
    """Hold the bytes that were read from a pipe and not taken yet; ``at`` is a position in them."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._data = bytearray()
        self._ended = False
        self.at = 0

    def has(self, count: int) -> bool:
        """Return whether ``count`` bytes follow ``at``; read from the pipe until that is known."""
        while len(self._data) < self.at + count and not self._ended:
            chunk = _read_some(self._file)
            self._ended = not chunk
            self._data += chunk
        return len(self._data) >= self.at + count

    def peek(self, count: int) -> bytes:
        return bytes(self._data[self.at : self.at + count])

    def begins_picture(self) -> bool:
        return self.has(2) and self.peek(2) == b"\xff\xd8"

    def skip_scan(self) -> bool:
        """Move to the next marker that ends a scan: inside a scan, ff is followed by 00 or a restart marker."""
        while True:
            place = self._data.find(0xFF, self.at)
            self.at = len(self._data) if place < 0 else place
            if not self.has(2):
                return False
            if place >= 0:
                if self._data[place + 1] not in (0x00, *_ALONE):
                    return True
                self.at = place + 2

    def seek_picture(self, start: int) -> None:
        """Move to the beginning of the next picture at or after ``start``, or to the end."""
        self.at = start
        while True:
            place = self._data.find(b"\xff\xd8", self.at)
            if place >= 0:
                self.at = place
                return
            # The last byte may be the first of a marker.
            self.at = max(start, len(self._data) - 1)
            if self.at > _MOST_BYTES or not self.has(2):
                self.at = len(self._data)
                return

    def take(self) -> bytes:
        """Remove the bytes before ``at`` and return them."""
        data = bytes(self._data[: self.at])
        del self._data[: self.at]
        self.at = 0
        return data


def _decode(decoder: VideoCodecContext, data: bytes) -> RgbArray | None:
    try:
        frames = decoder.decode(Packet(data))
    except av.error.FFmpegError:
        return None
    return to_rgb(frames[0]) if len(frames) == 1 and not frames[0].is_corrupt else None


def _read_some(file: BinaryIO) -> bytes:
    """Return the bytes that are available, at least one; empty at the end."""
    read = getattr(file, "read1", file.read)
    return bytes(read(_CHUNK))


def _read_whole(file: BinaryIO, size: int) -> bytes:
    """Return ``size`` bytes, fewer only at the end. One read of a pipe may return fewer."""
    data = bytearray()
    while len(data) < size and (chunk := file.read(size - len(data))):
        data += chunk
    return bytes(data)
