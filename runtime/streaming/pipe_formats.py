"""Frames from a pipe: raw RGB of a size that is told, or JPEG pictures one after the other (MJPEG).

    feed = parse_feed("raw:336x336")
    for rgb in feed.read(sys.stdin.buffer):
        ...

Nothing is lost in silence: a picture that is damaged or cut off, or what lies between pictures and is none, comes as
None in its place, and ``truncated`` says whether the end came in the middle of a frame.
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

__all__ = ["Feed", "Mjpeg", "Raw", "parse_feed", "split_pictures"]

Frame = npt.NDArray[np.uint8]

_CHUNK = 1 << 16
# A picture of MOST_PIXELS has less; what is longer has lost its end.
_MOST_BYTES = 1 << 26

_SOI, _EOI, _SOS = 0xD8, 0xD9, 0xDA
# Markers without a length (ITU-T T.81, B.1.1.3): TEM and the restarts.
_ALONE = {0x01, *range(0xD0, 0xD8)}


class Feed(Protocol):
    """How the bytes of a pipe become frames."""

    @property
    def truncated(self) -> bool | None:
        """Whether something that was to come is not there: true once the end cut a frame off. None: nobody knows."""
        ...

    def read(self, file: BinaryIO) -> Iterator[Frame | None]:
        """Frames as they come, uint8 RGB HxWx3 of one size; None for one that is damaged or cut off.

        Raises ``InputError`` where the first bytes are no frame.
        """
        ...


def parse_feed(text: str) -> Feed:
    """``raw:WIDTHxHEIGHT`` (uint8 RGB, row by row) or ``mjpeg``. Raises ``UsageError`` for anything else."""
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
    """Frames of one size without anything between them."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.truncated = False

    def read(self, file: BinaryIO) -> Iterator[Frame | None]:
        size = self.width * self.height * 3
        while data := _read_whole(file, size):
            if len(data) < size:
                self.truncated = True
                yield None
                return
            yield np.frombuffer(data, np.uint8).reshape(self.height, self.width, 3)


class Mjpeg:
    """JPEG pictures one after the other, of one size; one of another size counts as damaged."""

    def __init__(self) -> None:
        self.truncated = False

    def read(self, file: BinaryIO) -> Iterator[Frame | None]:
        decoder = CodecContext.create("mjpeg", "r")
        assert isinstance(decoder, VideoCodecContext)
        decoder.thread_type, decoder.thread_count = ThreadType.NONE, 1
        # As for recordings (``ffmpeg``): a picture that stands alone reports its damage in no other way.
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
    """The JPEG pictures of a pipe: their bytes, and whether they are whole; None for one cut off by the end.

    Found by their markers (ITU-T T.81), so that a thumbnail in a header ends no picture. Bytes that belong to none
    come as one that is not whole.

    Raises ``InputError`` where the first bytes begin no picture.
    """
    window = _Window(file)
    if window.has(1) and not window.begins_picture():
        raise InputError(
            f"stdin begins with {window.peek(2).hex(' ')}, a JPEG picture with ff d8",
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
    """Move behind the picture that begins here; False where it is damaged, None where the end cuts it off."""
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
    """What has been read of a pipe and not yet taken; ``at`` is a place in it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._data = bytearray()
        self._ended = False
        self.at = 0

    def has(self, count: int) -> bool:
        """Whether so many bytes follow; reads what it takes to know."""
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
        """Move to the next marker that is no restart: entropy-coded data has only ``ff 00`` and restarts."""
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
        """Move to where the next picture begins, from ``start`` on, or to the end."""
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
        """The bytes up to ``at``, which are let go."""
        data = bytes(self._data[: self.at])
        del self._data[: self.at]
        self.at = 0
        return data


def _decode(decoder: VideoCodecContext, data: bytes) -> Frame | None:
    try:
        frames = decoder.decode(Packet(data))
    except av.error.FFmpegError:
        return None
    return to_rgb(frames[0]) if len(frames) == 1 and not frames[0].is_corrupt else None


def _read_some(file: BinaryIO) -> bytes:
    """What is there, without waiting for more once something is; empty at the end."""
    read = getattr(file, "read1", file.read)
    return bytes(read(_CHUNK))


def _read_whole(file: BinaryIO, size: int) -> bytes:
    """So many bytes, fewer only at the end: a pipe hands over what it has."""
    data = bytearray()
    while len(data) < size and (chunk := file.read(size - len(data))):
        data += chunk
    return bytes(data)
