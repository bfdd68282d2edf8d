"""The one way from a frame to the model's input, for training, calibration, export and run time alike.

A capsule's picture is a circle or octagon on black, with text burnt in beside it. The bounding box of that field of
view is cropped, resized to the model's square and everything outside the inscribed ellipse set to black: no border, no
text and no brand's frame shape reaches the model, and a rotated frame stays a valid frame.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter

from ..errors import InputError
from ..inference import InputSpec
from ..recording import Planes, split, views

__all__ = ["FieldOfView", "find_field_of_view", "preprocess", "preprocess_planes", "resize"]

Frame = npt.NDArray[np.uint8]

# Black borders of coded video stay below this level (of 255); the darkest mucosa of a lit frame lies above it
# somewhere along every edge of the field of view.
_BLACK = 20
# A box smaller than this share of either side is a dark or blank frame, not a field of view.
_SMALLEST = 0.5
_AREA = Interpolation.AREA | Interpolation.ACCURATE_RND | Interpolation.BITEXACT
# A reformatter keeps its tables for the last sizes, and serves one thread at a time.
_local = threading.local()


@dataclass(frozen=True)
class FieldOfView:
    """Box of the picture proper, in pixels of the frame: ``left``, ``top``, ``width``, ``height``."""

    left: int
    top: int
    width: int
    height: int

    @classmethod
    def whole(cls, frame: Frame) -> FieldOfView:
        return cls(0, 0, frame.shape[1], frame.shape[0])


def find_field_of_view(frames: Iterable[Frame]) -> FieldOfView:
    """Box of the field of view over frames of one recording (uint8 RGB HxWx3, all of one size).

    The brightest value of each pixel over the frames is thresholded, the largest connected bright region is
    kept (burnt-in text is a small one) and its bounding box returned; rows and columns that only a sliver of the region
    reaches are left out. Where no region spans half of both sides (dark frames) the box is the whole frame.

    Raises ``InputError`` when there is no frame or their sizes differ.
    """
    brightest: Frame | None = None
    for frame in frames:
        _check(frame)
        red, green, blue = cv2.split(frame)
        luma = np.asarray(cv2.max(cv2.max(red, green), blue), np.uint8)
        if brightest is not None and luma.shape != brightest.shape:
            raise InputError(f"frames of one recording differ in size: {brightest.shape} and {luma.shape}")
        brightest = luma if brightest is None else np.maximum(brightest, luma)
    if brightest is None:
        raise InputError("no frame to find the field of view in")
    height, width = brightest.shape
    bright = cv2.morphologyEx(
        (brightest > _BLACK).astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)
    )
    _, regions, stats, _ = cv2.connectedComponentsWithStats(bright, connectivity=4)
    if len(stats) < 2:
        return FieldOfView(0, 0, width, height)
    largest = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    region = regions == largest
    columns = np.flatnonzero(region.sum(axis=0) > 0.02 * height)
    rows = np.flatnonzero(region.sum(axis=1) > 0.02 * width)
    if not len(columns) or not len(rows):
        return FieldOfView(0, 0, width, height)
    box = FieldOfView(
        int(columns[0]), int(rows[0]), int(columns[-1] - columns[0] + 1), int(rows[-1] - rows[0] + 1)
    )
    if box.width < _SMALLEST * width or box.height < _SMALLEST * height:
        return FieldOfView(0, 0, width, height)
    return box


def preprocess(frame: Frame, spec: InputSpec, field_of_view: FieldOfView | None = None) -> Frame:
    """A frame (uint8 RGB HxWx3) as the model's input (uint8 RGB size x size x 3).

    ``field_of_view`` is that of the recording; without it, it is looked for in this frame alone.
    """
    _check(frame)
    if spec.crop == "field_of_view" and field_of_view is None:
        field_of_view = find_field_of_view([frame])
    return preprocess_planes(split(frame), spec, field_of_view)


def preprocess_planes(
    planes: Planes,
    spec: InputSpec,
    field_of_view: FieldOfView | None = None,
    *,
    out: Frame | None = None,
) -> Frame:
    """The same from red, green and blue apart (``colours.to_planes``), without a picture of whole pixels.

    Resizing before the colour matrix would be cheaper still, but a bright pixel is cut off at 255 by the matrix:
    mixed with its neighbours before, it differs by up to 18 levels. The values are those of ``preprocess``.

    Args:
        field_of_view: of the recording; the whole frame where it is None.
        out: uint8 (size, size, 3) to write to, contiguous; a new array where it is None.
    """
    height, width = planes[0].shape
    if spec.crop == "field_of_view" and field_of_view is not None:
        box = field_of_view
        if (
            min(box.left, box.top) < 0
            or min(box.width, box.height) < 1
            or (box.left + box.width > width or box.top + box.height > height)
        ):
            raise InputError(f"{box} does not lie in a frame of {width} x {height} pixels")
        rows, columns = slice(box.top, box.top + box.height), slice(box.left, box.left + box.width)
        planes = (planes[0][rows, columns], planes[1][rows, columns], planes[2][rows, columns])
    if out is None:
        out = np.empty((spec.size, spec.size, 3), np.uint8)
    cv2.merge(resize(planes, spec.size), out)
    if spec.mask == "ellipse":
        cv2.bitwise_and(out, _ellipse(spec.size), out)
    return out


def resize(planes: Planes, size: int) -> Planes:
    """Channels, uint8 HxW each, as squares: the mean of what falls in each pixel, interpolated where it grows.

    The mean is swscale's in its bit-exact mode: integers, the same with and without vector units, and within 1 of
    OpenCV's (whose floats cost four times as much). It takes the channels for brightness and colour without
    subsampling, which it scales one by one: a call each costs nearly twice as much.
    """
    height, width = planes[0].shape
    if (height, width) == (size, size):
        return planes
    if min(height, width) < size:
        red, green, blue = (
            np.asarray(cv2.resize(plane, (size, size), interpolation=cv2.INTER_LINEAR_EXACT), np.uint8)
            for plane in planes
        )
        return red, green, blue
    scaler = _scaler(width, height)
    for own, plane in zip(scaler.planes, planes, strict=True):
        np.copyto(own, plane)
    scaled = scaler.reformatter.reformat(
        scaler.picture, width=size, height=size, format="yuv444p", interpolation=_AREA, threads=1
    )
    return views(scaled)


class _Scaler:
    """A reformatter, and a picture of one size for what it is to scale. Serves one thread."""

    def __init__(self, width: int, height: int) -> None:
        self.reformatter = VideoReformatter()
        self.picture = VideoFrame(width, height, "yuv444p")
        self.planes = views(self.picture)


def _scaler(width: int, height: int) -> _Scaler:
    """That of this thread; only the last size is kept."""
    found: _Scaler | None = getattr(_local, "scaler", None)
    if found is None or (found.picture.width, found.picture.height) != (width, height):
        found = _local.scaler = _Scaler(width, height)
    return found


@lru_cache(maxsize=8)
def _ellipse(size: int) -> Frame:
    """255 where the pixel's centre lies in the circle inscribed in the square, 0 elsewhere; three channels."""
    at = np.arange(size) + 0.5 - size / 2
    inside = at[:, None] ** 2 + at[None, :] ** 2 <= (size / 2) ** 2
    mask = np.repeat((inside * 255).astype(np.uint8)[:, :, None], 3, axis=2)
    mask.setflags(write=False)
    return mask


def _check(frame: Frame) -> None:
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or 0 in frame.shape:
        raise InputError(
            f"a frame is {frame.dtype} {frame.shape}, needed is uint8 RGB of shape (height, width, 3)"
        )
