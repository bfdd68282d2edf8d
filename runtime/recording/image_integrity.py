"""Check that an encoded image is complete: one rule for reading, evaluation and training."""

from __future__ import annotations

__all__ = ["picture_is_cut"]

_JPEG_START, _JPEG_SCAN, _JPEG_END = b"\xff\xd8", b"\xff\xda", b"\xff\xd9"


def picture_is_cut(data: bytes) -> bool:
    """Return whether a JPEG or PNG lacks its end marker.

    Decoders fill missing parts with grey and report nothing, so the marker is searched. Bytes after the marker are
    allowed. Other formats are never called cut.

    Args:
        data: the encoded image.
    """
    if data.startswith(_JPEG_START):
        # The marker must follow the last scan: an embedded thumbnail has an earlier end marker of its own.
        return data.rfind(_JPEG_END) <= data.rfind(_JPEG_SCAN)
    if data.startswith(b"\x89PNG"):
        return data.rfind(b"IEND") <= data.rfind(b"IDAT")
    return False
