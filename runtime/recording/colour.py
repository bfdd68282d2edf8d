"""From a decoded picture to red, green and blue, the same on every processor.

Both ways end in the same values: ``to_rgb`` in one array, ``to_planes`` in one array a channel, which costs
0.4 of it. FFmpeg has vector code for planes of colour and none for pixels of colour.
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
# Red, green and blue, uint8 HxW each; rows may be further apart than they are long.
Planes = tuple[Pixels, Pixels, Pixels]

# Code points of ITU-T H.273 to swscale's names for the matrix; 2 is untagged. Others (YCgCo, ICtCp) are
# refused.
_MATRICES = {1: 1, 2: 5, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9}
# Accurate, and the same bits on every processor: swscale's fast path is off by up to 3 and differs
# between SIMD sets.
_CONVERSION = (
    Interpolation.BILINEAR
    | Interpolation.ACCURATE_RND
    | Interpolation.BITEXACT
    | Interpolation.FULL_CHR_H_INT
)
# swscale takes every grey picture as full range, whatever it is told (ITU-R BT.601: black 16, white 235).
_LIMITED_GREY = np.clip(np.rint((np.arange(256) - 16) * (255 / 219)), 0, 255).astype(np.uint8)

# A reformatter keeps what it worked out for the last kind of picture, and serves one thread at a time.
_local = threading.local()


def to_rgb(frame: VideoFrame) -> Pixels:
    """A decoded picture as uint8 HxWx3 RGB, full range and upright, by the matrix and range that it is tagged with.

    Untagged pictures are taken as BT.601 limited. Chroma is interpolated. Any size, depth and layout that
    FFmpeg knows.

    Raises ``InputError`` for a matrix that is none of BT.601, BT.709, FCC, SMPTE 240M and BT.2020, and for a picture
    that is to be shown askew (``orientation``).
    """
    return np.asarray(cv2.merge(to_planes(frame)), np.uint8)


def to_planes(frame: VideoFrame) -> Planes:
    """The same values as ``to_rgb``, channel by channel. The arrays live as long as they are used."""
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
    """As it is stored."""
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
    """The channels of a uint8 HxWx3 array, copied to memory that FFmpeg may read a little beyond."""
    planes = _views(VideoFrame(rgb.shape[1], rgb.shape[0], "gbrp"))
    for channel, plane in enumerate(planes):
        cv2.extractChannel(rgb, channel, plane)
    return planes


def views(frame: VideoFrame) -> Planes:
    """The three planes of a picture of 8 bits as arrays, which live as long as they are used."""
    first, second, third = (
        np.ndarray((plane.height, plane.width), np.uint8, plane, strides=(plane.line_size, 1))  # type: ignore[arg-type]
        for plane in frame.planes
    )
    return first, second, third


def _views(frame: VideoFrame) -> Planes:
    green, blue, red = views(frame)
    return red, green, blue
