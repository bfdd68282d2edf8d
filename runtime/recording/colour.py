"""Convert decoded images to red, green and blue, with the same values on every processor.

``to_rgb`` returns one array, ``to_planes`` one array per channel with the same values. Planes cost 0.4 of the time:
FFmpeg has vector code for planar colour and none for packed colour.
"""

from __future__ import annotations

import threading

import cv2
import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter

from ..errors import InputError
from .orientation import orient, orientation_of

__all__ = ["Planes", "split", "to_planes", "to_rgb", "views"]

# uint8; RGB (height, width, 3), or one channel (height, width)
Pixels = npt.NDArray[np.uint8]
# Red, green and blue, uint8 (height, width) each; rows may be further apart than they are long.
Planes = tuple[Pixels, Pixels, Pixels]

# Matrix code points of ITU-T H.273 (2: untagged) to swscale's numbers. Others (YCgCo, ICtCp) are refused.
_MATRICES = {1: 1, 2: 5, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9}
# Accurate, and the same bits on every processor. swscale's fast path is off by up to 3 levels and differs between
# SIMD instruction sets.
_CONVERSION = (
    Interpolation.BILINEAR
    | Interpolation.ACCURATE_RND
    | Interpolation.BITEXACT
    | Interpolation.FULL_CHR_H_INT
)
# swscale takes every grey picture as full range, whatever it is told (ITU-R BT.601: black 16, white 235).
_LIMITED_GREY = np.clip(np.rint((np.arange(256) - 16) * (255 / 219)), 0, 255).astype(np.uint8)

# A reformatter keeps its tables for the last kind of image, and serves one thread at a time.
_local = threading.local()


def to_rgb(frame: VideoFrame) -> Pixels:
    """Return a decoded image as uint8 RGB (height, width, 3), full range and upright.

    The image's own tags give the colour matrix and range; untagged images are taken as BT.601 limited. Chroma is
    interpolated. Any size, depth and pixel format that FFmpeg knows.

    Raises:
        InputError: the matrix is none of BT.601, BT.709, FCC, SMPTE 240M and BT.2020, or the display matrix is no
            quarter turn or mirror (``orientation``).
    """
    return np.asarray(cv2.merge(to_planes(frame)), np.uint8)


def to_planes(frame: VideoFrame) -> Planes:
    """Return the values of ``to_rgb`` as three arrays, uint8 (height, width). Raises as ``to_rgb`` does."""
    planes = _convert(frame)
    orientation = orientation_of(frame)
    if orientation is None:
        return planes
    height, width = orient(planes[0], orientation).shape
    upright = _views(VideoFrame(width, height, "gbrp"))
    for plane, stored in zip(upright, planes, strict=True):
        np.copyto(plane, orient(stored, orientation))
    return upright


def _convert(frame: VideoFrame) -> Planes:
    """Convert an image as it is stored, not turned."""
    layout = frame.format
    if layout.is_rgb:
        return split(np.asarray(frame.to_ndarray(format="rgb24"), np.uint8))
    full = int(frame.color_range) == ColorRange.JPEG or layout.name.startswith("yuvj")
    if layout.name.startswith("gray"):
        grey = np.asarray(frame.to_ndarray(format="gray"), np.uint8)
        return split(np.repeat((grey if full else _LIMITED_GREY[grey])[:, :, None], 3, axis=2))
    matrix = _MATRICES.get(int(frame.colorspace))
    if matrix is None:
        raise InputError(
            f"colour matrix {int(frame.colorspace)} of ITU-T H.273 is not BT.601, BT.709 or BT.2020",
            hint="export the recording as H.264 in BT.601 or BT.709",
        )
    converter: VideoReformatter | None = getattr(_local, "converter", None)
    if converter is None:
        converter = _local.converter = VideoReformatter()
    converted = converter.reformat(
        frame,
        format="gbrp",
        src_colorspace=matrix,
        dst_colorspace=matrix,
        src_color_range=ColorRange.JPEG if full else ColorRange.MPEG,
        dst_color_range=ColorRange.JPEG,
        interpolation=_CONVERSION,
        threads=1,
    )
    return _views(converted)


def split(rgb: Pixels) -> Planes:
    """Return the channels of a uint8 (height, width, 3) array as planes.

    They are copied to memory with a margin, since FFmpeg reads a little beyond a plane's end.
    """
    planes = _views(VideoFrame(rgb.shape[1], rgb.shape[0], "gbrp"))
    for channel, plane in enumerate(planes):
        cv2.extractChannel(rgb, channel, plane)
    return planes


def views(frame: VideoFrame) -> Planes:
    """Return the three planes of an 8-bit image as arrays that share its memory and keep it alive."""
    first, second, third = (
        np.ndarray((plane.height, plane.width), np.uint8, plane, strides=(plane.line_size, 1))  # type: ignore[arg-type]
        for plane in frame.planes
    )
    return first, second, third


def _views(frame: VideoFrame) -> Planes:
    green, blue, red = views(frame)
    return red, green, blue
