"""Skip frames that are nearly identical to the last frame that the model answered.

Capsule video stands still for stretches. The filter divides the field of view of a decoded frame into 32 x 32 areas
and compares their brightness. That is cheap, but it misses a change that is smaller than an area. No threshold is
certain to keep every finding: ``docs/runtime.md`` lists how many frames each threshold hid in measurements. The
filter is off by default.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame

from ..errors import UsageError
from ..recording import Frame, to_luma
from .field_of_view import FieldOfView

__all__ = ["EVERY", "SIDE", "THRESHOLD", "check_threshold", "mark_duplicates", "measure"]

SIDE = 32
# Mean absolute difference of the areas, levels of 255. Of the thresholds tried on the ``train`` recordings, this is
# the largest that hid no frame with a finding above its operating point, left every event as it was and kept at least
# 99.5 % of the labels (``benchmarks/redundancy.py``).
THRESHOLD = 0.5
# Frames are compared only within blocks of this many, so the model answers the first image of each block. The choice
# of duplicates in a block therefore does not depend on earlier blocks, and every duplicate is less than this many
# frames away from its original.
EVERY = 64

Luma = npt.NDArray[np.uint8]


def check_threshold(threshold: float) -> float:
    """Return the threshold. Raise ``UsageError`` unless it is a number from 0 to 255."""
    if not 0 <= threshold <= 255:
        raise UsageError(
            f"gate is {threshold}, allowed is 0 to 255 levels of brightness", hint=f"tested is {THRESHOLD}"
        )
    return float(threshold)


def mark_duplicates(
    frames: Iterable[Frame],
    threshold: float,
    *,
    field_of_view: FieldOfView | None = None,
    gop_of: Callable[[int], int] = lambda index: 0,
) -> Iterator[Frame]:
    """Yield the same frames, near-duplicates without their image and with ``duplicate_of`` set.

    A frame is a near-duplicate when it differs from the last frame that was not one by less than ``threshold``.

    Args:
        frames: of one recording, in order.
        threshold: mean absolute difference of brightness, levels of 255.
        field_of_view: compare inside this box; the whole frame where it is None.
        gop_of: returns the number of a frame's closed GOP. Only frames of one GOP are compared.
    """
    last: tuple[int, Luma] | None = None
    for frame in frames:
        if frame.image is None:
            yield frame
            continue
        luma = measure(frame.image, field_of_view)
        if (
            last is not None
            and frame.index // EVERY == last[0] // EVERY
            and gop_of(frame.index) == gop_of(last[0])
            and cv2.norm(luma, last[1], cv2.NORM_L1) < threshold * luma.size
        ):
            yield replace(frame, image=None, duplicate_of=last[0])
        else:
            last = frame.index, luma
            yield frame


def measure(image: VideoFrame | npt.NDArray[np.uint8], field_of_view: FieldOfView | None) -> Luma:
    """Return the brightness of ``SIDE`` x ``SIDE`` areas of the field of view, uint8 (``SIDE``, ``SIDE``)."""
    luma = _luma(image)
    if (box := field_of_view) is not None:
        luma = luma[box.top : box.top + box.height, box.left : box.left + box.width]
    # A mean of every other row is as good for areas of ten rows, and costs half.
    rows = 2 if luma.shape[0] >= 4 * SIDE else 1
    return np.asarray(cv2.resize(luma[::rows], (SIDE, SIDE), interpolation=cv2.INTER_AREA), np.uint8)


def _luma(image: VideoFrame | npt.NDArray[np.uint8]) -> Luma:
    """Return the brightness of an upright image, uint8 (height, width)."""
    if not isinstance(image, VideoFrame):
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)
    return to_luma(image)
