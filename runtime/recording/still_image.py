"""Decode one encoded image of a folder, a TIFF, a DICOM file or a data set: one rule for reading, evaluation, training.

OpenCV decodes palettes, 1-bit, grey, 16-bit (its upper byte) and CMYK images, and turns them as their Exif or TIFF
orientation says, with the same result as ``orientation`` gives for the same JPEG in a video.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from .colour import put_on_black, split
from .ffmpeg import MOST_PIXELS
from .image_header import has_deep_values, picture_size
from .image_integrity import picture_is_cut

__all__ = ["StillImage", "decode_still"]

Pixels = npt.NDArray[np.uint8]
_TWELVE_BITS = 4096


@dataclass(frozen=True, slots=True)
class StillImage:
    """A decoded image.

    Attributes:
        rgb: uint8 RGB (height, width, 3), upright, transparent parts on black.
        transparent: whether it has transparent parts.
        twelve_bits: whether it was read as 12 bits in 16.
    """

    rgb: Pixels
    transparent: bool
    twelve_bits: bool = False


def decode_still(data: bytes, page: int | None = None, *, twelve_bits: bool = False) -> StillImage | None:
    """Decode an image; None where it is cut off, damaged or larger than ``MOST_PIXELS``.

    The header's size is read first: an image that states too many pixels is not decoded.

    Args:
        data: the encoded image.
        page: of a file of several pages (TIFF); None for other files.
        twelve_bits: take the values of a 16-bit image as 12 bits where all are below 4096. For single pictures: in a
            recording, a dark frame of 16 bits would shine.
    """
    width, height = picture_size(data) or (0, 0)
    if picture_is_cut(data) or width * height > MOST_PIXELS:
        return None
    if twelve_bits and page is None and (eight := _scaled_twelve_bits(data)) is not None:
        return eight
    alpha = page is None and _may_be_transparent(data)
    try:
        pixels = _decode(data, page, cv2.IMREAD_UNCHANGED if alpha else cv2.IMREAD_COLOR)
        if pixels is not None and alpha and (pixels.ndim != 3 or pixels.shape[2] != 4):
            pixels = _decode(data, page, cv2.IMREAD_COLOR)
    except cv2.error:
        return None
    if pixels is None or not 0 < pixels.shape[0] * pixels.shape[1] <= MOST_PIXELS:
        return None
    if pixels.shape[2] == 3:
        return StillImage(np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8), False)
    # The upper byte of 16 bits, as OpenCV takes it from images without transparency.
    eight = pixels if pixels.dtype == np.uint8 else (pixels >> 8).astype(np.uint8)
    planes = split(np.asarray(cv2.cvtColor(eight, cv2.COLOR_BGRA2RGB), np.uint8))
    transparent = put_on_black(planes, np.ascontiguousarray(eight[:, :, 3]))
    return StillImage(np.asarray(cv2.merge(planes), np.uint8), transparent)


def _scaled_twelve_bits(data: bytes) -> StillImage | None:
    """Return an image that holds 12 bits in 16; None for any other image."""
    if not has_deep_values(data):
        return None
    alpha = _may_be_transparent(data)
    try:
        mode = cv2.IMREAD_UNCHANGED if alpha else cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH
        pixels = _decode(data, None, mode)
    except cv2.error:
        return None
    if pixels is None or pixels.dtype != np.uint16 or pixels.ndim != 3:
        return None
    colours = pixels[:, :, :3]
    if not 0 < colours.max() < _TWELVE_BITS:
        return None
    rgb = np.asarray(cv2.cvtColor((colours >> 4).astype(np.uint8), cv2.COLOR_BGR2RGB), np.uint8)
    if pixels.shape[2] == 3:
        return StillImage(rgb, False, True)
    planes = split(rgb)
    shift = 4 if pixels[:, :, 3].max() < _TWELVE_BITS else 8
    transparent = put_on_black(planes, np.ascontiguousarray((pixels[:, :, 3] >> shift).astype(np.uint8)))
    return StillImage(np.asarray(cv2.merge(planes), np.uint8), transparent, True)


def _decode(data: bytes, page: int | None, mode: int) -> Any:
    buffer = np.frombuffer(data, np.uint8)
    if page is None:
        return cv2.imdecode(buffer, mode)
    whole, pages = cv2.imdecodemulti(buffer, mode, range=(page, page + 1))
    return pages[0] if whole and len(pages) == 1 else None


def _may_be_transparent(data: bytes) -> bool:
    """Return whether a PNG or WebP announces transparency.

    One that also has an Exif block is read without its transparency: OpenCV does not turn such an image.

    Sources: PNG (third edition), 11.2.1 and 11.3.1.1; RFC 9649 (WebP), 2.7 and 3.4.
    """
    if data.startswith(b"\x89PNG") and len(data) > 25:
        before_pixels = data[: data.find(b"IDAT")]
        return (data[25] in (4, 6) or b"tRNS" in before_pixels) and b"eXIf" not in data
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP" and len(data) > 24:
        extended, lossless = data[12:16] == b"VP8X", data[12:16] == b"VP8L"
        # Bits of the first byte of VP8X: 0x10 transparency, 0x08 Exif. VP8L has its bit behind two sizes of 14 bits.
        return (extended and data[20] & 0x18 == 0x10) or (lossless and bool(data[24] & 0x10))
    return False
