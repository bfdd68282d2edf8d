"""Where an encoded picture ends: the one rule for reading, evaluation and training."""

from __future__ import annotations

__all__ = ["picture_is_cut"]

_JPEG_START, _JPEG_SCAN, _JPEG_END = b"\xff\xd8", b"\xff\xda", b"\xff\xd9"


def picture_is_cut(data: bytes) -> bool:
    """Whether a JPEG or PNG lacks its end. Other formats are never called cut; bytes behind the end are allowed.

    The decoders fill what is missing with grey and report nothing, so the end marker is looked for.
    """
    if data.startswith(_JPEG_START):
        # It must follow the last scan: an embedded thumbnail has an end marker of its own, earlier.
        return data.rfind(_JPEG_END) <= data.rfind(_JPEG_SCAN)
    if data.startswith(b"\x89PNG"):
        return data.rfind(b"IEND") <= data.rfind(b"IDAT")
    return False
