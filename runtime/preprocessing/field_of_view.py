"""Find the field of view: the box of a capsule's circular or octagonal image within the black frame."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from ..errors import InputError
from ..inference import InputSpec
from ..recording import Frame

__all__ = [
    "FIELD_FRAMES",
    "FieldOfView",
    "check_box",
    "check_pixels",
    "check_sizes",
    "find_field_of_view",
    "settle_field_of_view",
]

Pixels = npt.NDArray[np.uint8]

# Frames in which the field of view is searched: 5 to 16 s of an examination at 2 to 6 frames a second.
FIELD_FRAMES = 32
# Black borders of coded video stay below this level (of 255). Along every edge of the field of view, the darkest
# mucosa of a lit frame lies above it somewhere.
_BLACK = 20
# A box smaller than this share of either side comes from a dark or blank frame.
_SMALLEST = 0.5


@dataclass(frozen=True)
class FieldOfView:
    """Box of the field of view in pixels of the frame: ``left``, ``top``, ``width``, ``height``."""

    left: int
    top: int
    width: int
    height: int

    @classmethod
    def whole(cls, frame: Pixels) -> FieldOfView:
        """Return the box of a whole frame (height, width, ...)."""
        return cls(0, 0, frame.shape[1], frame.shape[0])


def settle_field_of_view(
    frames: Iterable[Frame], spec: InputSpec, known: FieldOfView | None = None
) -> tuple[FieldOfView | None, Iterator[Frame]]:
    """Find the field of view in the first frames; return it together with all the frames.

    The first ``FIELD_FRAMES`` frames that have an image are taken from ``frames`` and given back, not decoded twice.

    Args:
        frames: of one recording, in order.
        spec: input of the model. A model that does not crop needs no field of view.
        known: the field of view, where it is known.

    Returns:
        The field of view, None where the model needs none or no frame has an image; and the same frames.

    Raises:
        InputError: a frame differs in size from the frames before it. The returned frames may raise it, too.
    """
    iterator = check_sizes(frames)
    if known is not None or spec.crop == "none":
        return known, iterator
    first: deque[Frame] = deque()
    images: list[Pixels] = []
    for frame in iterator:
        first.append(frame)
        if frame.image is not None:
            images.append(frame.rgb())
        if len(images) == FIELD_FRAMES:
            break
    return find_field_of_view(images) if images else None, _give_back(first, iterator)


def check_sizes(frames: Iterable[Frame]) -> Iterator[Frame]:
    """Yield the frames of one recording.

    Raises:
        InputError: a frame differs in size from the frames before it.
    """
    shape: tuple[int, int] | None = None
    for frame in frames:
        if frame.image is not None:
            shape = shape or frame.shape
            if frame.shape != shape:
                raise InputError(f"frame {frame.index} is {frame.shape}, the frames before it are {shape}")
        yield frame


def find_field_of_view(frames: Iterable[Pixels]) -> FieldOfView:
    """Return the box of the field of view over frames of one recording.

    The brightest value of each pixel over the frames is thresholded. The largest connected bright region is kept
    (burnt-in text is a small one), and its bounding box is returned without rows and columns that only a sliver of the
    region reaches. Where no region spans half of both sides (dark frames), the box is the whole frame.

    Args:
        frames: uint8 RGB (height, width, 3), all of one size.

    Raises:
        InputError: there is no frame, or their sizes differ.
    """
    brightest = _brightest(frames)
    height, width = brightest.shape
    whole = FieldOfView(0, 0, width, height)
    bright = cv2.morphologyEx(
        (brightest > _BLACK).astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)
    )
    _, regions, stats, _ = cv2.connectedComponentsWithStats(bright, connectivity=4)
    if len(stats) < 2:
        return whole
    largest = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    region = regions == largest
    columns = np.flatnonzero(region.sum(axis=0) > 0.02 * height)
    rows = np.flatnonzero(region.sum(axis=1) > 0.02 * width)
    if not len(columns) or not len(rows):
        return whole
    box = FieldOfView(
        int(columns[0]), int(rows[0]), int(columns[-1] - columns[0] + 1), int(rows[-1] - rows[0] + 1)
    )
    if box.width < _SMALLEST * width or box.height < _SMALLEST * height:
        return whole
    return box


def check_box(box: FieldOfView, height: int, width: int) -> FieldOfView:
    """Return the field of view. Raise ``InputError`` unless it lies in a frame of that size."""
    inside = box.left + box.width <= width and box.top + box.height <= height
    if min(box.left, box.top) < 0 or min(box.width, box.height) < 1 or not inside:
        raise InputError(f"{box} does not lie in a frame of {width} x {height} pixels")
    return box


def check_pixels(frame: Pixels) -> None:
    """Raise ``InputError`` for anything but a uint8 RGB array of shape (height, width, 3) that is not empty."""
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or 0 in frame.shape:
        raise InputError(
            f"a frame is {frame.dtype} {frame.shape}, needed is uint8 RGB of shape (height, width, 3)"
        )


def _give_back(first: deque[Frame], rest: Iterator[Frame]) -> Iterator[Frame]:
    # Not ``itertools.chain``, which holds the images of ``first`` until ``rest`` ends.
    while first:
        yield first.popleft()
    yield from rest


def _brightest(frames: Iterable[Pixels]) -> Pixels:
    """Return the brightest value of each pixel over the frames, uint8 (height, width)."""
    brightest: Pixels | None = None
    for frame in frames:
        check_pixels(frame)
        red, green, blue = cv2.split(frame)
        luma = np.asarray(cv2.max(cv2.max(red, green), blue), np.uint8)
        if brightest is not None and luma.shape != brightest.shape:
            raise InputError(f"frames of one recording differ in size: {brightest.shape} and {luma.shape}")
        brightest = luma if brightest is None else np.maximum(brightest, luma)
    if brightest is None:
        raise InputError("no frame to find the field of view in")
    return brightest
