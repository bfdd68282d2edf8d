"""Find out whether a file ends before its own header says. Only the container's bytes are read.

A recording is truncated when a copy stops, a card is pulled or a disk is full. FFmpeg reads such a file to its end and
reports nothing, so this module compares the lengths that the container announces with the file.

Sources: ISO/IEC 14496-12 (boxes), RFC 8794 and RFC 9559 (EBML, Matroska), Microsoft RIFF and OpenDML 1.02
(AVI).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO

__all__ = ["Boxes", "avi_is_cut", "count_last_empty", "matroska_is_cut", "read_boxes"]

# A hostile file of tiny boxes must not keep a reader busy for hours. A day's recording in fragments of one second has
# fewer than 200,000 boxes.
_MOST_BOXES = 1 << 20
_MOST_INDEX_BYTES = 1 << 26
_MP4_STARTS = frozenset({b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"moof", b"styp", b"sidx"})
_EBML = b"\x1a\x45\xdf\xa3"
_SEGMENT = b"\x18\x53\x80\x67"


@dataclass(frozen=True)
class Boxes:
    """The top level of an MP4 file.

    Attributes:
        index: state of the ``moov`` box: ``whole``, ``cut`` or ``absent``.
        fragmented: the file consists of fragments (``moof`` boxes).
        closed: a fragmented file has the random access table (``mfra``) that ends it.
        overrun: a box is announced beyond the end of the file.
    """

    index: str
    fragmented: bool
    closed: bool
    overrun: bool


def read_boxes(file: BinaryIO, size: int) -> Boxes | None:
    """Return the top level of an MP4 file; None when the file does not begin like one.

    Args:
        file: opened for reading.
        size: of the file in bytes.
    """
    at, index, fragmented, closed, overrun = 0, "absent", False, False, False
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
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        elif length == 0:
            length = size - at
        if length < 8:
            break
        if kind == b"moov":
            index = "whole" if at + length <= size else "cut"
        fragmented = fragmented or kind == b"moof"
        closed = closed or (kind == b"mfra" and at + length <= size)
        at += length
        if at > size:
            overrun = True
            break
    return Boxes(index, fragmented, closed, overrun)


def matroska_is_cut(file: BinaryIO, size: int) -> bool | None:
    """Return whether the Segment reaches beyond the file's ``size`` bytes; None where it has no size (live files)."""
    file.seek(0)
    head = file.read(4096)
    if head[:4] != _EBML:
        return None
    header = _ebml_length(head, 4)
    if header is None or header[0] is None:
        return None
    at = header[1] + header[0]
    if head[at : at + 4] != _SEGMENT:
        return None
    segment = _ebml_length(head, at + 4)
    if segment is None or segment[0] is None:
        return None
    return segment[1] + segment[0] > size


def _ebml_length(data: bytes, at: int) -> tuple[int | None, int] | None:
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


def count_last_empty(file: BinaryIO) -> int:
    """Return how many empty places for a frame the index of an AVI (``idx1``) has behind its last frame.

    An empty place means "show the last frame again". The header counts it as a frame.
    """
    index = _read_avi_index(file)
    video = [
        index[at : at + 16]
        for at in range(0, len(index) - 15, 16)
        if index[at + 2 : at + 4] in (b"dc", b"db")
    ]
    last = next((at for at, entry in enumerate(reversed(video)) if any(entry[12:16])), 0)
    return last


def _read_avi_index(file: BinaryIO) -> bytes:
    at = 12
    for _ in range(_MOST_BOXES):
        file.seek(at)
        head = file.read(8)
        length = int.from_bytes(head[4:8], "little")
        if head[:4] == b"idx1":
            return file.read(min(length, _MOST_INDEX_BYTES))
        if len(head) < 8 or head[:4] not in (b"LIST", b"JUNK"):
            break
        at += 8 + length + length % 2
    return b""
