"""State the colours of a JPEG that does not say them itself.

A JPEG of three components is YCbCr if it has a JFIF marker, and says so itself in an Adobe marker. Without either,
decoders guess, mostly YCbCr; in DICOM, PhotometricInterpretation then tells (PS3.5, 8.2.1).
Sources: ITU-T T.81, B.1; ITU-T T.871 (JFIF), 10; ITU-T T.872, 6.5.3 (Adobe).
"""

from __future__ import annotations

__all__ = ["state_colours"]

_START = b"\xff\xd8"
_SCAN, _APP0, _APP14 = 0xDA, 0xE0, 0xEE
# Markers without a length: restarts and the start of the image.
_BARE = frozenset({0x01, *range(0xD0, 0xD9)})


def state_colours(data: bytes, photometric: str) -> bytes:
    """Return a JPEG with an Adobe marker that states its colours, if it has no marker of its own that does.

    Args:
        data: the JPEG.
        photometric: PhotometricInterpretation; other values than those of RGB and YCbCr change nothing.
    """
    transform = {"RGB": 0, "YBR_FULL": 1, "YBR_FULL_422": 1}.get(photometric)
    if transform is None or not data.startswith(_START) or _states_colours(data):
        return data
    return _START + b"\xff\xee\x00\x0eAdobe\x00\x64\0\0\0\0" + bytes([transform]) + data[2:]


def _states_colours(data: bytes) -> bool:
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF or marker in _BARE:
            # A fill byte, or a marker alone.
            at += 1 if marker == 0xFF else 2
            continue
        if marker == _SCAN:
            return False
        content = data[at + 4 : at + 9]
        if (marker == _APP0 and content == b"JFIF\0") or (marker == _APP14 and content == b"Adobe"):
            return True
        at += 2 + int.from_bytes(data[at + 2 : at + 4])
    return False
