"""The one way from a frame to the model's input, for training, calibration, export and run time alike.

A capsule's picture is a circle or octagon on black, with text burnt in beside it. The bounding box of that field of
view is cropped, resized to the model's square and everything outside the inscribed ellipse set to black: no border, no
text and no brand's frame shape reaches the model, and a rotated frame stays a valid frame.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from .errors import InputError
from .spec import InputSpec

__all__ = ["FieldOfView", "find_field_of_view", "preprocess"]

Frame = npt.NDArray[np.uint8]

# Black borders of coded video stay below this level (of 255); the darkest mucosa of a lit frame lies above it
# somewhere along every edge of the field of view.
_BLACK = 20
# A box smaller than this share of either side is a dark or blank frame, not a field of view.
_SMALLEST = 0.5


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
        luma = frame.max(axis=2)
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
    if spec.crop == "field_of_view":
        box = field_of_view or find_field_of_view([frame])
        if (
            min(box.left, box.top) < 0
            or min(box.width, box.height) < 1
            or (box.left + box.width > frame.shape[1] or box.top + box.height > frame.shape[0])
        ):
            raise InputError(f"{box} does not lie in a frame of {frame.shape[1]} x {frame.shape[0]} pixels")
        frame = frame[box.top : box.top + box.height, box.left : box.left + box.width]
    if frame.shape[:2] != (spec.size, spec.size):
        shrinks = frame.shape[0] >= spec.size and frame.shape[1] >= spec.size
        method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR_EXACT
        frame = np.asarray(cv2.resize(frame, (spec.size, spec.size), interpolation=method), np.uint8)
    if spec.mask == "ellipse":
        frame = np.asarray(cv2.bitwise_and(frame, _ellipse(spec.size)), np.uint8)
    return np.ascontiguousarray(frame)


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
