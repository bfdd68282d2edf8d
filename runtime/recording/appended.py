"""Find recordings that lie behind the first one in the same file, as joining files byte by byte leaves them.

FFmpeg reads the first alone in most formats (MP4, FLV, ASF), and in silence. Joined transport and program streams are
one recording for it, so they are not looked at here.

Sources: as in ``truncation``; Adobe FLV 10.1, annex E.2; Microsoft ASF 01.20.06, 10.1; RFC 3533 (Ogg).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, cast

from ..errors import InputError
from .ffmpeg import StreamPlace, open_recording, picture_packets, video_streams
from .file_window import FileWindow, StoredFile
from .truncation import Boxes, avi_end, matroska_end, read_boxes

__all__ = ["AppendedRecording", "divide"]

# Looks like the beginning of a file; whether it is one, opening it tells.
_BEGINNINGS = {
    "mp4": rb"\x00\x00[\x00-\x03].ftyp",
    "avi": rb"RIFF....AVI LIST",
    "matroska": rb"\x1a\x45\xdf\xa3.{1,64}?\x42\x82.(?:matroska|webm)",
    "asf": rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\x00\xaa\x00\x62\xce\x6c",
    "flv": rb"FLV\x01[\x00-\x05]\x00\x00\x00\x09",
    # A page that begins a stream, with number 0.
    "ogg": rb"OggS\x00[\x02\x06].{12}\x00{4}",
}
_LONGEST_BEGINNING = 128
_ANY_BEGINNING = re.compile(b"|".join(_BEGINNINGS.values()), re.DOTALL)
# Padding that may lie between two files.
_GAP = 1 << 16
_BLOCK = 1 << 20
_MOST = 1000


@dataclass(frozen=True)
class AppendedRecording:
    """One of several recordings in a file.

    Attributes:
        start, end: its bytes in the file.
        pictures: number of pictures in its video streams; None where it cannot be opened.
        boxes: the top level of an MP4.
        traits: format, codec, size and codec header of the first video stream. The decoder of one recording can read
            on in another only where they are the same.
    """

    start: int
    end: int
    pictures: int | None
    boxes: Boxes | None
    traits: tuple[object, ...] = ()


def divide(path: StoredFile, size: int) -> tuple[int, list[AppendedRecording]]:
    """Find the recordings behind the first one in a file, and where those end that can be read as one.

    Args:
        path: of the file.
        size: of the file in bytes.

    Returns:
        The number of bytes to read: up to the first recording that cannot be read together with those before. And the
        recordings in the file, where there are several.
    """
    starts = _find_recordings(path, size)
    if not starts:
        return size, []
    bounds = zip([0, *starts], [*starts, size], strict=True)
    parts = [_count_pictures(path, start, end) for start, end in bounds]
    if parts[0].pictures is None:
        return size, []
    for part in parts[1:]:
        if part.pictures and not _reads_on(parts[0], part):
            return part.start, parts
    return size, parts


def _find_recordings(path: StoredFile, size: int) -> list[int]:
    """Return the positions in bytes of the recordings behind the first one. No recording is opened."""
    starts: list[int] = []
    with path.open("rb") as file:
        start = 0
        while len(starts) < _MOST:
            found = _next_recording(_window(file, start, size), size - start)
            if found is None:
                break
            start += found
            starts.append(start)
    return starts


def _count_pictures(path: StoredFile, start: int, end: int) -> AppendedRecording:
    with path.open("rb") as file:
        boxes = read_boxes(_window(file, start, end), end - start)
    try:
        with open_recording(path, StreamPlace(None, start, end)) as (source, stream):
            context = stream.codec_context
            traits = (source.format.name, context.name, context.width, context.height, context.extradata)
            pictures = sum(1 for _ in picture_packets(source, video_streams(source)))
    except InputError:
        return AppendedRecording(start, end, None, boxes)
    return AppendedRecording(start, end, pictures, boxes, traits)


def _reads_on(first: AppendedRecording, second: AppendedRecording) -> bool:
    """Return whether FFmpeg and one decoder read the second recording together with the first.

    FFmpeg's AVI and Matroska demuxers go on behind the end of the file. Its MP4 demuxer goes on from fragment to
    fragment, but looks for their pictures in the first file. Joined Ogg files are one file by its standard ("chained"),
    and their headers come as packets, so that these need not be the same.
    """
    if first.traits[:1] == ("ogg",):
        return first.traits[:4] == second.traits[:4]
    return first.traits == second.traits and str(first.traits[0]).startswith(("avi", "matroska"))


def _window(file: BinaryIO, start: int, end: int) -> BinaryIO:
    return cast(BinaryIO, FileWindow(file, start, end))


def _next_recording(file: BinaryIO, size: int) -> int | None:
    """Return where a second recording begins in a file; None where none does."""
    file.seek(0)
    head = file.read(_LONGEST_BEGINNING)
    kind = next((kind for kind, begin in _BEGINNINGS.items() if re.match(begin, head, re.DOTALL)), None)
    if kind == "avi":
        return _behind(file, avi_end(file), size)
    if kind == "matroska" and (end := matroska_end(file)) is not None:
        return _behind(file, end, size)
    if kind in ("matroska", "asf", "flv", "ogg"):
        return _search(file, re.compile(_BEGINNINGS[kind], re.DOTALL), size, beginning=kind == "ogg")
    boxes = read_boxes(file, size)
    return None if boxes is None else boxes.second


def _behind(file: BinaryIO, end: int | None, size: int) -> int | None:
    if end is None or end >= size:
        return None
    file.seek(end)
    found = _ANY_BEGINNING.search(file.read(_GAP))
    return None if found is None else end + found.start()


def _search(file: BinaryIO, pattern: re.Pattern[bytes], size: int, *, beginning: bool) -> int | None:
    """Return the position of the next match behind the file's head.

    Args:
        file: to search.
        pattern: of a beginning.
        size: of the file.
        beginning: the head itself may hold several matches in a row, one for each stream (Ogg).
    """
    # Behind the head of an Ogg file the beginnings of its streams follow each other; its data come after them.
    at = _skip_heads(file, pattern) if beginning else 1
    while at < size:
        file.seek(at)
        block = file.read(_BLOCK + _LONGEST_BEGINNING)
        found = pattern.search(block)
        if found is not None:
            return at + found.start()
        at += _BLOCK
    return None


def _skip_heads(file: BinaryIO, pattern: re.Pattern[bytes]) -> int:
    """Return the position behind the pages at the head of an Ogg file that begin its streams."""
    at = 0
    for head in _pages(file):
        if not pattern.match(head):
            break
        at += 27 + head[26] + sum(head[27 : 27 + head[26]])
        file.seek(at)
    return at


def _pages(file: BinaryIO) -> Iterator[bytes]:
    file.seek(0)
    while len(head := file.read(27 + 255)) >= 28:
        yield head
