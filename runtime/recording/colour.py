"""Convert decoded images to red, green and blue, with the same values on every processor.

``to_rgb`` returns one array, ``to_planes`` one array per channel with the same values. Planes cost 0.4 of the time:
FFmpeg has vector code for planar colour and none for packed colour.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt
from av.video.format import VideoFormat
from av.video.frame import VideoFrame
from av.video.plane import VideoPlane
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter

from ..errors import InputError
from .orientation import orient, orientation_of
from .warning import RecordingWarning

__all__ = [
    "TRANSPARENCY",
    "Planes",
    "is_full_range",
    "matrix_of",
    "odd_colour",
    "put_on_black",
    "split",
    "to_luma",
    "to_planes",
    "to_rgb",
    "views",
]

# uint8; RGB (height, width, 3), or one channel (height, width)
Pixels = npt.NDArray[np.uint8]
# Red, green and blue, uint8 (height, width) each; rows may be further apart than they are long.
Planes = tuple[Pixels, Pixels, Pixels]

# Matrix code points of ITU-T H.273 (2: untagged) to swscale's numbers. 10 is BT.2020 with another formula for bright
# colours, which players take as 9.
_MATRICES = {1: 1, 2: 5, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9, 10: 9}
# Code points that contradict an image with luma and chroma (0: RGB), or mean nothing (reserved: 3, and 18 or more).
# They are taken as untagged. Those left are other colour spaces (YCgCo, ICtCp), which are refused.
_MEANINGLESS = frozenset({0, 3, *range(18, 256)})
# "As the primaries say": those of BT.709 and BT.2020 give these matrices. Others are taken as untagged.
_BY_PRIMARIES, _OF_PRIMARIES = frozenset({12, 13}), {1: 1, 9: 9}
_UNTAGGED = 2
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

TRANSPARENCY = RecordingWarning(
    "transparency", "the images have transparent parts, which were read as players show them on black"
)

# A reformatter keeps its tables for the last kind of image, and serves one thread at a time.
_local = threading.local()


@dataclass(frozen=True, slots=True)
class _Layout:
    """The content of a pixel format, and its transparency."""

    holds: Literal["rgb", "palette", "bits", "grey", "grey_alpha", "luma_chroma"]
    alpha: bool
    # The first plane is 8-bit brightness and nothing else.
    plain_luma: bool


def to_rgb(frame: VideoFrame) -> Pixels:
    """Return a decoded image as uint8 RGB (height, width, 3), full range and upright.

    The image's own tags give the colour matrix and range; untagged images are taken as BT.601 limited, and so are
    images with luma and chroma whose matrix is RGB or a reserved number. RGB, palettes, 1-bit images and grey with
    transparency are full range. Chroma is interpolated. Transparent parts are shown on black (``put_on_black``). Any
    size, depth and pixel format that FFmpeg knows.

    Raises:
        InputError: the matrix is that of another colour space (YCgCo, ICtCp and the like), or the display matrix is no
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


def to_luma(frame: VideoFrame) -> Pixels:
    """Return the brightness of a decoded image, uint8 (height, width) and upright.

    That is the image's own plane, in the range in which it is stored, where it has such a plane of 8 bits; else
    full range. Images of one recording are alike in this. Raises as ``to_rgb`` does.
    """
    layout = _layout(frame.format.name)
    if layout.alpha or layout.holds in ("palette", "bits"):
        stored = np.asarray(cv2.cvtColor(cv2.merge(_convert(frame)), cv2.COLOR_RGB2GRAY), np.uint8)
    else:
        grey = frame
        if layout.holds == "rgb":
            grey = frame.reformat(format="gray")
        elif not layout.plain_luma:
            # The matrix does not matter for brightness, but FFmpeg refuses those that it does not know.
            grey = frame.reformat(format="gray", src_colorspace=5, dst_colorspace=5)
        stored = _array(grey.planes[0])
    orientation = orientation_of(frame)
    return stored if orientation is None else np.ascontiguousarray(orient(stored, orientation))


def put_on_black(planes: Planes, alpha: Pixels) -> bool:
    """Blend an image with black where it is transparent, in place, as players show it.

    An image that is transparent everywhere is left as it is: 32-bit RGB is often written with zeros as its fourth byte.

    Args:
        planes: red, green and blue, changed here.
        alpha: uint8 (height, width), 255 where opaque.

    Returns:
        Whether any part is transparent.
    """
    least, most, *_ = cv2.minMaxLoc(alpha)
    if least == 255 or most == 0:
        return False
    for plane in planes:
        cv2.multiply(plane, alpha, plane, scale=1 / 255)
    return True


def odd_colour(frame: VideoFrame) -> list[RecordingWarning]:
    """Return a warning for each oddity in how a decoded image states its colours."""
    layout, name, matrix = _layout(frame.format.name), frame.format.name, int(frame.colorspace)
    found: list[RecordingWarning] = []
    if layout.holds not in ("rgb", "grey") and (taken := _describe_matrix(layout, matrix)):
        found.append(
            RecordingWarning(
                "colour_matrix", f"the images ({name}) state colour matrix {matrix} of ITU-T H.273{taken}"
            )
        )
    limited = int(frame.color_range) == ColorRange.MPEG
    if limited and (layout.holds not in ("grey", "luma_chroma") or name.startswith("yuvj")):
        found.append(
            RecordingWarning(
                "colour_range",
                f"the images ({name}) state a limited range, which contradicts their pixel format; they were read as"
                " full range",
            )
        )
    if layout.alpha and _blend(frame, layout)[1]:
        found.append(TRANSPARENCY)
    return found


def _describe_matrix(layout: _Layout, matrix: int) -> str:
    """Return why a matrix is odd and what was done; empty where it is usual, or refused elsewhere."""
    if matrix in _MEANINGLESS and layout.holds != "luma_chroma":
        return ", and have none; their stored colours were used"
    if matrix in _MEANINGLESS:
        said = "which is RGB and contradicts their pixel format" if matrix == 0 else "which is reserved"
        return f", {said}; they were read as untagged (BT.601)"
    if layout.holds == "luma_chroma" and matrix in _BY_PRIMARIES:
        return ", which depends on the primaries; they were read with the matrix of BT.709 or BT.2020, else of BT.601"
    if layout.holds == "luma_chroma" and matrix == 10:
        return " (constant luminance); they were read with matrix 9, as players do"
    return ""


@lru_cache(maxsize=256)
def _layout(name: str) -> _Layout:
    """Return what FFmpeg's pixel format of that name holds."""
    known = VideoFormat(name)
    components = known.components
    alpha = any(component.is_alpha for component in components) or known.has_palette
    plain = components[0].bits == 8 and (name.startswith(("yuv4", "yuvj4", "nv")) or name == "gray")
    if known.has_palette:
        return _Layout("palette", alpha, False)
    if name.startswith("mono"):
        return _Layout("bits", alpha, False)
    if known.is_rgb:
        return _Layout("rgb", alpha, False)
    if name in ("ya8", "ya16le", "ya16be"):
        return _Layout("grey_alpha", alpha, False)
    return _Layout("grey" if name.startswith("gray") else "luma_chroma", alpha, plain)


def _convert(frame: VideoFrame) -> Planes:
    """Convert an image as it is stored, not turned."""
    layout = _layout(frame.format.name)
    if layout.alpha:
        return _blend(frame, layout)[0]
    if layout.holds == "luma_chroma":
        return _views(_to_gbr(frame, "gbrp"))
    if layout.holds == "grey":
        grey = np.asarray(frame.to_ndarray(format="gray"), np.uint8)
        return _spread(grey if is_full_range(frame) else _LIMITED_GREY[grey])
    return split(np.asarray(frame.to_ndarray(format="rgb24"), np.uint8))


def _blend(frame: VideoFrame, layout: _Layout) -> tuple[Planes, bool]:
    """Convert an image with transparency. Return also whether it shows: see ``put_on_black``."""
    if layout.holds == "luma_chroma":
        converted = _to_gbr(frame, "gbrap")
        planes, alpha = _views(converted), _array(converted.planes[3])
    elif layout.holds == "grey_alpha":
        grey, alpha = _grey_and_alpha(frame)
        planes = _spread(grey)
    else:
        rgba = np.asarray(frame.to_ndarray(format="rgba"), np.uint8)
        planes, alpha = split(rgba), np.ascontiguousarray(rgba[:, :, 3])
    return planes, put_on_black(planes, alpha)


def _spread(grey: Pixels) -> Planes:
    """Return grey levels as three equal channels."""
    return split(np.repeat(grey[:, :, None], 3, axis=2))


def _grey_and_alpha(frame: VideoFrame) -> tuple[Pixels, Pixels]:
    """Return the two channels of ``ya8`` or ``ya16``, uint8 (height, width) each."""
    plane, name = frame.planes[0], frame.format.name
    kind = np.dtype({"ya8": "u1", "ya16le": "<u2", "ya16be": ">u2"}[name])
    strides = (plane.line_size, 2 * kind.itemsize, kind.itemsize)
    both = np.ndarray((frame.height, frame.width, 2), kind, plane, strides=strides)  # type: ignore[arg-type]
    if kind.itemsize == 2:
        both = (both.astype(np.uint32) + 128) // 257  # 65535 / 255 is 257
    return both[:, :, 0].astype(np.uint8), both[:, :, 1].astype(np.uint8)


def is_full_range(frame: VideoFrame) -> bool:
    """Return whether the samples of an image span 0..255, as its tags or its pixel format say."""
    return int(frame.color_range) == ColorRange.JPEG or frame.format.name.startswith("yuvj")


def matrix_of(frame: VideoFrame) -> int:
    """Return swscale's number of the matrix of an image with luma and chroma. Raise ``InputError`` if it has none."""
    stated = int(frame.colorspace)
    if stated in _MEANINGLESS:
        stated = _UNTAGGED
    elif stated in _BY_PRIMARIES:
        stated = _OF_PRIMARIES.get(int(frame.color_primaries), _UNTAGGED)
    matrix = _MATRICES.get(stated)
    if matrix is None:
        raise InputError(
            f"colour matrix {stated} of ITU-T H.273 is not BT.601, BT.709 or BT.2020",
            hint="export the recording as H.264 in BT.601 or BT.709",
        )
    return matrix


def _to_gbr(frame: VideoFrame, layout: str) -> VideoFrame:
    """Convert an image with luma and chroma to 8-bit planar RGB, ``gbrp`` or ``gbrap``."""
    matrix = matrix_of(frame)
    converter: VideoReformatter | None = getattr(_local, "converter", None)
    if converter is None:
        converter = _local.converter = VideoReformatter()
    return converter.reformat(
        frame,
        format=layout,
        src_colorspace=matrix,
        dst_colorspace=matrix,
        src_color_range=ColorRange.JPEG if is_full_range(frame) else ColorRange.MPEG,
        dst_color_range=ColorRange.JPEG,
        interpolation=_CONVERSION,
        threads=1,
    )


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
    first, second, third = (_array(plane) for plane in frame.planes[:3])
    return first, second, third


def _array(plane: VideoPlane) -> Pixels:
    return np.ndarray((plane.height, plane.width), np.uint8, plane, strides=(plane.line_size, 1))  # type: ignore[arg-type]


def _views(frame: VideoFrame) -> Planes:
    green, blue, red = views(frame)
    return red, green, blue
