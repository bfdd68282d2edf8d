"""Find out whether a file ends before its own header says. Only the container's bytes are read.

A recording is truncated when a copy stops, a card is pulled or a disk is full. FFmpeg reads such a file to its end and
reports nothing, so this module compares the lengths that the container announces with the file.

Sources: ISO/IEC 14496-12 (boxes), RFC 8794 and RFC 9559 (EBML, Matroska), Microsoft RIFF and OpenDML 1.02
(AVI).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO

from .file_window import StoredFile

__all__ = [
    "Boxes",
    "announced_bytes",
    "avi_end",
    "avi_is_cut",
    "ebml_length",
    "matroska_end",
    "matroska_is_cut",
    "read_boxes",
]

# A hostile file of tiny boxes must not keep a reader busy for hours. A day's recording in fragments of one second has
# fewer than 200,000 boxes.
_MOST_BOXES = 1 << 20
_MP4_STARTS = frozenset({b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"moof", b"styp", b"sidx"})
_EBML = b"\x1a\x45\xdf\xa3"
# How files of other formats begin, which may lie behind an MP4 and are no boxes: AVI, Matroska, Ogg, FLV, ASF.
_OTHER_STARTS = (b"RIFF", _EBML, b"OggS", b"FLV\1", b"\x30\x26\xb2\x75")
_SEGMENT = b"\x18\x53\x80\x67"


@dataclass(frozen=True)
class Boxes:
    """The top level of an MP4 file.

    Attributes:
        index: state of the ``moov`` box: ``whole``, ``cut`` or ``absent``.
        fragmented: the file consists of fragments (``moof`` boxes).
        closed: a fragmented file has the random access table (``mfra``) that ends it.
        overrun: a box is announced beyond the end of the file.
        second: position in bytes of a second file behind the first, which alone the other attributes describe; None
            where there is none.
    """

    index: str
    fragmented: bool
    closed: bool
    overrun: bool
    second: int | None = None


def read_boxes(file: BinaryIO, size: int) -> Boxes | None:
    """Return the top level of an MP4 file; None when the file does not begin like one.

    Args:
        file: opened for reading.
        size: of the file in bytes.
    """
    at, index, fragmented, closed, overrun = 0, "absent", False, False, False
    second: int | None = None
    kinds: set[bytes] = set()
    # Where the first file ends if no ``ftyp`` says where the second begins.
    complete: int | None = None
    for _ in range(_MOST_BOXES):
        file.seek(at)
        head = file.read(16)
        if len(head) < 8:
            if at == 0:
                return None
            overrun = overrun or bool(head)
            break
        length, kind = int.from_bytes(head[:4], "big"), head[4:8]
        if at == 0 and kind not in _MP4_STARTS:
            return None
        if (kind == b"ftyp" and not kinds.isdisjoint({b"ftyp", b"moov"})) or head[:4] in _OTHER_STARTS:
            second = at
            break
        if kind == b"moov" and complete is not None:
            second = complete
            break
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        elif length == 0:
            length = size - at
        if length < 8:
            break
        kinds.add(kind)
        if kind == b"moov":
            index = "whole" if at + length <= size else "cut"
        fragmented = fragmented or kind == b"moof"
        closed = closed or (kind == b"mfra" and at + length <= size)
        at += length
        if at > size:
            overrun = True
            break
        if complete is None and kinds >= {b"moov", b"mdat"}:
            complete = at
    return Boxes(index, fragmented, closed, overrun, second)


def matroska_is_cut(file: BinaryIO, size: int) -> bool | None:
    """Return whether the Segment reaches beyond the file's ``size`` bytes; None where it has no size (live files)."""
    end = matroska_end(file)
    return None if end is None else end > size


def matroska_end(file: BinaryIO) -> int | None:
    """Return the position at which the Segment ends by its size; None where it has none."""
    file.seek(0)
    head = file.read(4096)
    if head[:4] != _EBML:
        return None
    header = ebml_length(head, 4)
    if header is None or header[0] is None:
        return None
    at = header[1] + header[0]
    if head[at : at + 4] != _SEGMENT:
        return None
    segment = ebml_length(head, at + 4)
    if segment is None or segment[0] is None:
        return None
    return segment[1] + segment[0]


def ebml_length(data: bytes, at: int) -> tuple[int | None, int] | None:
    """Return an EBML variable-size integer and the position after it; None for the integer where it is unknown."""
    if at >= len(data) or data[at] == 0:
        return None
    width = 9 - data[at].bit_length()
    if at + width > len(data):
        return None
    ones = (1 << (7 * width)) - 1
    value = int.from_bytes(data[at : at + width], "big") & ones
    return (None if value == ones else value), at + width


def avi_is_cut(file: BinaryIO, size: int) -> bool | None:
    """Return whether a RIFF chunk (the first, or one that OpenDML adds) reaches beyond the file's ``size`` bytes.

    None where the recorder never wrote the size (0 or all ones), because it was switched off while recording.
    """
    at = 0
    for _ in range(_MOST_BOXES):
        if at >= size:
            break
        file.seek(at)
        head = file.read(12)
        if head[:4] != b"RIFF" or len(head) < 12 or head[8:12] not in (b"AVI ", b"AVIX"):
            break
        length = int.from_bytes(head[4:8], "little")
        if length in (0, 0xFFFFFFFF):
            return None
        if at + 8 + length > size:
            return True
        at += 8 + length + length % 2
    return False if at else None


def avi_end(file: BinaryIO) -> int | None:
    """Return the position at which an AVI with its OpenDML parts ends by its RIFF sizes; None where it has none."""
    at = 0
    for _ in range(_MOST_BOXES):
        file.seek(at)
        head = file.read(12)
        if len(head) < 12 or head[:4] != b"RIFF" or head[8:] != (b"AVIX" if at else b"AVI "):
            break
        length = int.from_bytes(head[4:8], "little")
        if length in (0, 0xFFFFFFFF):
            return None
        at += 8 + length + length % 2
    return at or None


def announced_bytes(path: StoredFile, size: int, index: Sequence[tuple[int, int, int, bool]]) -> int:
    """Return the size in bytes that a file would have whole, as its container announces it; ``size`` or more.

    Args:
        path: of the file.
        size: of the file.
        index: (time stamp, position, length, edited out) of each entry of the demuxer's index.
    """
    with path.open("rb") as file:
        end = avi_end(file) or 0
    return max(size, end, max((position + length for _, position, length, _ in index), default=0))
