"""Shrink luma and chroma planes to the model's size and convert them to RGB there, in integers.

swscale's bit-exact area filter does it in one call: it averages the planes to 15-bit values and applies the colour
matrix to these. ``docs/preprocessing.md`` writes the same arithmetic down, and the tests compare the two to the bit.
"""

from __future__ import annotations

import threading

import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter

from ..errors import InputError
from ..recording import CodedPicture, CodedPlanes, Planes, views
from .field_of_view import FieldOfView

__all__ = ["shrink", "shrink_whole"]

Pixels = npt.NDArray[np.uint8]
_Key = tuple[str, int, int, int]

# Numbers, not enum members: PyAV looks up a member's value on each call.
_FILTER = int(
    Interpolation.AREA | Interpolation.ACCURATE_RND | Interpolation.BITEXACT | Interpolation.FULL_CHR_H_INT
)
_LIMITED, _FULL = int(ColorRange.MPEG), int(ColorRange.JPEG)
# From a ratio of about 150 on, swscale shrinks in two steps, which gives other values.
_LARGEST_RATIO = 128
_FORMATS = {
    (1, 1): "yuv420p",
    (1, 0): "yuv422p",
    (0, 0): "yuv444p",
    (2, 0): "yuv411p",
    (2, 2): "yuv410p",
    (0, 1): "yuv440p",
}
# A scaler keeps swscale's tables for one kind of image; the sizes of the model and of report pictures alternate.
_MOST_SCALERS = 4
_local = threading.local()


class _PlaneScaler:
    """Scale pictures of one kind, whole or in part. Serves one thread."""

    def __init__(self, layout: str, width: int, height: int) -> None:
        self._reformatter = VideoReformatter()
        self._kind = width, height, layout
        self._part: tuple[VideoFrame, Planes] | None = None

    def hold(self) -> tuple[VideoFrame, Planes]:
        """Return a picture to copy a part of an image into, and its planes. There is one, made at the first call."""
        if self._part is None:
            picture = VideoFrame(*self._kind)
            self._part = picture, views(picture)
        return self._part

    def scale(self, picture: CodedPicture, size: int) -> Planes:
        """Return red, green and blue of a picture of this scaler's kind, uint8 (size, size) each."""
        scaled = self._reformatter.reformat(
            picture.image,
            width=size,
            height=size,
            format="gbrp",
            src_colorspace=picture.matrix,
            dst_colorspace=picture.matrix,
            src_color_range=_FULL if picture.full_range else _LIMITED,
            dst_color_range=_FULL,
            interpolation=_FILTER,
            threads=1,
        )
        green, blue, red = views(scaled)
        return red, green, blue


def shrink(planes: CodedPlanes, box: FieldOfView, size: int) -> Planes:
    """Return red, green and blue of a box of an image at the model's size, uint8 (size, size) each.

    The chroma planes are cut at ``left >> shift_x`` and ``top >> shift_y``; their box is as large as the chroma of a
    picture of the box's size. Each plane is resized on its own, centre to centre.

    Args:
        planes: luma and chroma.
        box: the part of the image, in pixels of its luma.
        size: side of the square, pixels.

    Raises:
        InputError: a side of the box is more than 128 times ``size``.
    """
    right, down = planes.shift_x, planes.shift_y
    scaler = _scaler((_FORMATS[right, down], box.width, box.height, size))
    picture, (luma, blue, red) = scaler.hold()
    np.copyto(luma, planes.luma[box.top : box.top + box.height, box.left : box.left + box.width])
    top, left = box.top >> down, box.left >> right
    rows, columns = slice(top, top + blue.shape[0]), slice(left, left + blue.shape[1])
    np.copyto(blue, planes.blue[rows, columns])
    np.copyto(red, planes.red[rows, columns])
    return scaler.scale(CodedPicture(picture, planes.matrix, planes.full_range), size)


def shrink_whole(picture: CodedPicture, size: int) -> Planes:
    """Return what ``shrink`` returns for the whole of an image, without copying its planes.

    Args:
        picture: a decoded image.
        size: side of the square, pixels.

    Raises:
        InputError: as ``shrink``.
    """
    image = picture.image
    return _scaler((image.format.name, image.width, image.height, size)).scale(picture, size)


def _scaler(key: _Key) -> _PlaneScaler:
    """Return this thread's scaler for images of a format, width and height that are scaled to a size."""
    known: dict[_Key, _PlaneScaler] | None = getattr(_local, "scalers", None)
    if known is None:
        known = _local.scalers = {}
    found = known.get(key)
    if found is None:
        _check_ratio(*key[1:])
        if len(known) == _MOST_SCALERS:
            known.clear()
        layout, width, height, _ = key
        found = known[key] = _PlaneScaler(layout, width, height)
    return found


def _check_ratio(width: int, height: int, size: int) -> None:
    most = _LARGEST_RATIO * size
    if max(width, height) > most:
        raise InputError(
            f"an image of {width} x {height} pixels cannot be shrunk to the model's {size} x {size}, allowed are"
            f" at most {most} pixels a side",
            hint="give a field of view, or shrink the recording",
        )
