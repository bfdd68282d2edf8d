"""Give an image as 8-bit luma and chroma planes, the form in which preprocessing version 2 takes it.

A video's own planes are passed on unchanged. Images that come as RGB (JPEG and PNG files, RGB, grey and palette video,
images with transparency) are converted to planes of the same size, BT.601 full range as in JFIF.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt
from av.video.format import VideoFormat
from av.video.frame import VideoFrame
from av.video.plane import VideoPlane

from .colour import is_full_range, matrix_of, to_rgb
from .orientation import orient, orientation_of

__all__ = ["CodedPlanes", "coded_of_rgb", "to_coded"]

Pixels = npt.NDArray[np.uint8]

BT601 = 5  # swscale's number of the colour matrix
_PLANAR = re.compile(r"yuvj?4(?:44|22|20|11|10|40)p(?:(9|10|12|14|16)le)?")
# Formats that hold the same 8-bit samples in another order, and the planar format to unpack them to.
_PACKED = {
    "nv12": "yuv420p",
    "nv21": "yuv420p",
    "nv16": "yuv422p",
    "nv24": "yuv444p",
    "nv42": "yuv444p",
    "yuyv422": "yuv422p",
    "uyvy422": "yuv422p",
    "yvyu422": "yuv422p",
}


@dataclass(frozen=True, slots=True)
class CodedPlanes:
    """An upright image as luma and chroma.

    Attributes:
        luma: uint8 (height, width).
        blue: the Cb plane, uint8; its sides are those of ``luma`` divided by a power of two and rounded up.
        red: the Cr plane, uint8, of the same shape as ``blue``.
        shift_x: the logarithm to base 2 of the divisor of the width.
        shift_y: the logarithm to base 2 of the divisor of the height.
        matrix: swscale's number of the colour matrix: 1 (BT.709), 4 (FCC), 5 (BT.601), 7 (SMPTE 240M), 9 (BT.2020).
        full_range: luma and chroma span 0..255, not 16..235 and 16..240.
    """

    luma: Pixels
    blue: Pixels
    red: Pixels
    shift_x: int
    shift_y: int
    matrix: int
    full_range: bool


@dataclass(frozen=True, slots=True)
class _Layout:
    """The place of luma and chroma in a pixel format, for the formats whose planes are passed on."""

    planar: str  # the 8-bit planar format; equal to the format's own name where nothing is unpacked
    bits: int
    shift_x: int
    shift_y: int


def to_coded(frame: VideoFrame) -> CodedPlanes:
    """Return a decoded image as luma and chroma planes, upright.

    Planar YUV is passed on: 8-bit samples unchanged, deeper ones rounded to 8 bits. Other images are converted to RGB
    (``to_rgb``) and from there to planes (``coded_of_rgb``). The planes may share the frame's memory.

    Raises:
        InputError: as ``to_rgb``.
    """
    layout = _layout(frame.format.name)
    orientation = orientation_of(frame)
    if layout is None or (orientation is not None and layout.shift_x != layout.shift_y):
        return coded_of_rgb(to_rgb(frame))
    stored = frame if layout.bits > 8 or layout.planar == frame.format.name else _unpack(frame, layout.planar)
    planes = [_samples(plane, layout.bits) for plane in stored.planes[:3]]
    if orientation is not None:
        planes = [np.ascontiguousarray(orient(plane, orientation)) for plane in planes]
    luma, blue, red = planes
    return CodedPlanes(
        luma, blue, red, layout.shift_x, layout.shift_y, matrix_of(frame), is_full_range(frame)
    )


def coded_of_rgb(rgb: Pixels) -> CodedPlanes:
    """Return an RGB image as 4:4:4 planes, BT.601 full range, in integers:

        Y  = (4899 R + 9617 G + 1868 B + 8192) >> 14
        Cb = ((B - Y) * 9241 + 2105344) >> 14
        Cr = ((R - Y) * 11682 + 2105344) >> 14        each cut off at 0 and 255; 2105344 is 128 * 16384 + 8192

    Args:
        rgb: uint8 (height, width, 3).
    """
    split = cv2.split(cv2.cvtColor(rgb, cv2.COLOR_RGB2YCrCb))
    luma, red, blue = (np.asarray(plane, np.uint8) for plane in split)
    return CodedPlanes(luma, blue, red, 0, 0, BT601, full_range=True)


@lru_cache(maxsize=256)
def _layout(name: str) -> _Layout | None:
    """Return where a pixel format holds luma and chroma; None where the image goes through RGB."""
    planar = _PACKED.get(name, name)
    match = _PLANAR.fullmatch(planar)
    if match is None:
        return None
    known = VideoFormat(planar)
    width, height = known.chroma_width(64), known.chroma_height(64)
    return _Layout(
        planar, int(match[1] or 8), (64 // width).bit_length() - 1, (64 // height).bit_length() - 1
    )


def _unpack(frame: VideoFrame, planar: str) -> VideoFrame:
    """Bring 8-bit samples into planes. No sample changes: matrix and range are the same on both sides."""
    return frame.reformat(format=planar, src_colorspace=BT601, dst_colorspace=BT601)


def _samples(plane: VideoPlane, bits: int) -> Pixels:
    """Return a plane as 8-bit samples (height, width)."""
    if bits == 8:
        return np.ndarray((plane.height, plane.width), np.uint8, plane, strides=(plane.line_size, 1))  # type: ignore[arg-type]
    deep = np.ndarray((plane.height, plane.width), "<u2", plane, strides=(plane.line_size, 2))  # type: ignore[arg-type]
    rounded = (deep.astype(np.uint32) + (1 << (bits - 9))) >> (bits - 8)
    return np.asarray(np.minimum(rounded, 255), np.uint8)
