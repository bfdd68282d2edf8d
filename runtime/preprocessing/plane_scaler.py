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

from ..recording import CodedPlanes, Planes, views
from .field_of_view import FieldOfView

__all__ = ["shrink"]

Pixels = npt.NDArray[np.uint8]
_Key = tuple[str, int, int, int]

_FILTER = (
    Interpolation.AREA | Interpolation.ACCURATE_RND | Interpolation.BITEXACT | Interpolation.FULL_CHR_H_INT
)
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
    """A picture to copy planes into, and a reformatter that scales it. Serves one thread."""

    def __init__(self, layout: str, width: int, height: int) -> None:
        self.reformatter = VideoReformatter()
        self.picture = VideoFrame(width, height, layout)
        self.planes = views(self.picture)


def shrink(planes: CodedPlanes, box: FieldOfView, size: int) -> Planes:
    """Return red, green and blue of a box of an image at the model's size, uint8 (size, size) each.

    The chroma planes are cut at ``left >> shift_x`` and ``top >> shift_y``; their box is as large as the chroma of a
    picture of the box's size. Each plane is resized on its own, centre to centre.

    Args:
        planes: luma and chroma.
        box: the part of the image, in pixels of its luma.
        size: side of the square, pixels.
    """
    right, down = planes.shift_x, planes.shift_y
    scaler = _scaler((_FORMATS[right, down], box.width, box.height, size))
    luma, blue, red = scaler.planes
    np.copyto(luma, planes.luma[box.top : box.top + box.height, box.left : box.left + box.width])
    top, left = box.top >> down, box.left >> right
    rows, columns = slice(top, top + blue.shape[0]), slice(left, left + blue.shape[1])
    np.copyto(blue, planes.blue[rows, columns])
    np.copyto(red, planes.red[rows, columns])
    scaled = scaler.reformatter.reformat(
        scaler.picture,
        width=size,
        height=size,
        format="gbrp",
        src_colorspace=planes.matrix,
        dst_colorspace=planes.matrix,
        src_color_range=ColorRange.JPEG if planes.full_range else ColorRange.MPEG,
        dst_color_range=ColorRange.JPEG,
        interpolation=_FILTER,
        threads=1,
    )
    green, blue, red = views(scaled)
    return red, green, blue


def _scaler(key: _Key) -> _PlaneScaler:
    """Return this thread's scaler for images of a format, width and height that are scaled to a size."""
    known: dict[_Key, _PlaneScaler] | None = getattr(_local, "scalers", None)
    if known is None:
        known = _local.scalers = {}
    found = known.get(key)
    if found is None:
        if len(known) == _MOST_SCALERS:
            known.clear()
        layout, width, height, _ = key
        found = known[key] = _PlaneScaler(layout, width, height)
    return found
