"""Read the size and depth that the header of an encoded image states, without decoding it.

A file of some kilobytes can state a billion pixels. Decoders allocate them before anybody can look at the result.
"""

from __future__ import annotations

import re
from typing import Literal

__all__ = ["has_deep_values", "picture_size"]

# Start-of-frame markers of JPEG (ITU-T T.81, table B.1): C0 to CF without C4 (tables), C8 (reserved) and CC.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_NETPBM = re.compile(
    rb"P[1-6]\s+(?:#[^\n]*\n\s*)*(\d{1,18})\s+(?:#[^\n]*\n\s*)*(\d{1,18})"
    rb"(?:\s+(?:#[^\n]*\n\s*)*(\d{1,5})\s)?"
)
_TIFF_STARTS = (b"II*\0", b"MM\0*")
_TIFF_WIDTH, _TIFF_HEIGHT, _TIFF_BITS, _TIFF_SHORT = 256, 257, 258, 3


def picture_size(data: bytes) -> tuple[int, int] | None:
    """Return the width and height that an image states; None for an unknown format or a broken header.

    PNG, JPEG, GIF, BMP, WebP, TIFF (its first page) and PNM are known.

    Args:
        data: the encoded image, or its beginning.
    """
    if data.startswith(b"\xff\xd8"):
        return _jpeg(data)
    if data.startswith(b"\x89PNG") and len(data) >= 24:
        return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    if data.startswith(b"GIF8") and len(data) >= 10:
        return int.from_bytes(data[6:8], "little"), int.from_bytes(data[8:10], "little")
    if data.startswith(b"BM") and len(data) >= 26:
        return _bmp(data)
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP" and len(data) >= 30:
        return _webp(data)
    if data[:4] in _TIFF_STARTS:
        return _tiff(data)
    sizes = _NETPBM.match(data[:1000])
    return (int(sizes[1]), int(sizes[2])) if sizes else None


def _jpeg(data: bytes) -> tuple[int, int] | None:
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker in _FRAMES:
            return int.from_bytes(data[at + 7 : at + 9], "big"), int.from_bytes(data[at + 5 : at + 7], "big")
        if marker == 0xFF:  # a fill byte
            at += 1
        elif marker == 0x01 or 0xD0 <= marker <= 0xD7:  # markers without a length
            at += 2
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


def _bmp(data: bytes) -> tuple[int, int]:
    if int.from_bytes(data[14:18], "little") == 12:  # the header of OS/2
        return int.from_bytes(data[18:20], "little"), int.from_bytes(data[20:22], "little")
    # A negative height means rows from top to bottom.
    width, height = (int.from_bytes(data[at : at + 4], "little", signed=True) for at in (18, 22))
    return abs(width), abs(height)


def _webp(data: bytes) -> tuple[int, int] | None:
    """Sources: RFC 9649 (WebP), 2.7.1 and 3.4; RFC 6386 (VP8), 9.1."""
    kind = data[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        return _vp8_side(data[26:28]), _vp8_side(data[28:30])
    return None


def _vp8_side(pair: bytes) -> int:
    """Return a side of a VP8 picture; the upper two bits of 16 are a scale that decoders ignore."""
    return int.from_bytes(pair, "little") & 0x3FFF


def has_deep_values(data: bytes) -> bool:
    """Return whether an image states more than 8 bits for each value: a PNG, a TIFF (its first page) or a PNM."""
    if data.startswith(b"\x89PNG"):
        return len(data) > 24 and data[24] == 16
    if data[:4] in _TIFF_STARTS:
        order = _order(data)
        at, kind, count = _tiff_tags(data, order).get(_TIFF_BITS, (0, 0, 0))
        # Up to two values stand in the entry itself. More stand elsewhere, and the entry holds their place.
        at = at if count <= 2 else int.from_bytes(data[at : at + 4], order)
        return kind == _TIFF_SHORT and int.from_bytes(data[at : at + 2], order) > 8
    most = (
        _NETPBM.match(data[:1000]) if data[:2] not in (b"P1", b"P4") else None
    )  # bitmaps state no highest value
    return most is not None and most[3] is not None and int(most[3]) > 255


def _tiff(data: bytes) -> tuple[int, int] | None:
    order = _order(data)
    tags = _tiff_tags(data, order)
    sides = []
    for tag in (_TIFF_WIDTH, _TIFF_HEIGHT):
        if tag not in tags:
            return None
        at, kind, _ = tags[tag]
        sides.append(int.from_bytes(data[at : at + (2 if kind == _TIFF_SHORT else 4)], order))
    return sides[0], sides[1]


def _order(data: bytes) -> Literal["little", "big"]:
    return "little" if data[:1] == b"I" else "big"


def _tiff_tags(data: bytes, order: Literal["little", "big"]) -> dict[int, tuple[int, int, int]]:
    """Return the tags of the first page: the place of each value, its type and the number of values.

    Source: TIFF 6.0, section 2.
    """
    first = int.from_bytes(data[4:8], order)
    entries = int.from_bytes(data[first : first + 2], order)
    tags = {}
    for at in range(first + 2, min(first + 2 + 12 * entries, len(data) - 11), 12):
        tag, kind = (int.from_bytes(data[at + k : at + k + 2], order) for k in (0, 2))
        tags[tag] = (at + 8, kind, int.from_bytes(data[at + 4 : at + 8], order))
    return tags
