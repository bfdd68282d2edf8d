"""Passes over frames that are near-identical to the last one that the model saw.

Capsule video stands still for stretches. What is compared is the brightness of 32 x 32 places inside the field of
view, as decoded: cheap, and blind to what is smaller than a place, so a threshold says what was measured with it
(``docs/runtime.md``), not what is certain. Off unless asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame

from ..errors import UsageError
from ..recording import orient, orientation_of
from .batching import Sighted
from .model_input import FieldOfView

__all__ = ["EVERY", "SIDE", "THRESHOLD", "check_threshold", "mark_duplicates", "measure"]

SIDE = 32
# Mean absolute difference of the places, in levels of 255. Of the ``train`` recordings, the largest that hid no
# flagged frame, left every event as it was and kept 99.5 % of labels (``benchmarks/redundancy.py``).
THRESHOLD = 0.5
# A frame whose index is a multiple of this is always seen by the model: what is a duplicate does not depend on
# where a run began, and none is further from its original.
EVERY = 64

Luma = npt.NDArray[np.uint8]


def check_threshold(threshold: float) -> float:
    """Raises ``UsageError`` for a threshold that is no number from 0 to 255."""
    if not 0 <= threshold <= 255:
        raise UsageError(
            f"gate is {threshold}, allowed is 0 to 255 levels of brightness", hint=f"tested is {THRESHOLD}"
        )
    return float(threshold)


def mark_duplicates(
    located: Iterable[tuple[Sighted, FieldOfView | None]],
    threshold: float,
    *,
    stretch: Callable[[int], int] = lambda index: 0,
) -> Iterator[tuple[Sighted, FieldOfView | None]]:
    """The same frames; one nearer than ``threshold`` to the last that passed has no picture and ``duplicate_of``.

    ``stretch`` of an index is a number; only frames of one are compared.
    """
    last: tuple[int, Luma] | None = None
    for one, box in located:
        if one.picture is None:
            yield one, box
            continue
        seen = measure(one.picture, box)
        if (
            last is not None
            and one.index // EVERY == last[0] // EVERY
            and stretch(one.index) == stretch(last[0])
            and cv2.norm(seen, last[1], cv2.NORM_L1) < threshold * seen.size
        ):
            yield replace(one, picture=None, duplicate_of=last[0]), box
        else:
            last = one.index, seen
            yield one, box


def measure(picture: VideoFrame | npt.NDArray[np.uint8], box: FieldOfView | None) -> Luma:
    """Brightness of ``SIDE`` x ``SIDE`` places of the field of view, uint8."""
    luma = _luma(picture)
    if box is not None:
        luma = luma[box.top : box.top + box.height, box.left : box.left + box.width]
    # A mean of every other row is as good for places of ten rows, and costs half.
    rows = 2 if luma.shape[0] >= 4 * SIDE else 1
    return np.asarray(cv2.resize(luma[::rows], (SIDE, SIDE), interpolation=cv2.INTER_AREA), np.uint8)


def _luma(picture: VideoFrame | npt.NDArray[np.uint8]) -> Luma:
    if not isinstance(picture, VideoFrame):
        return np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), np.uint8)
    layout = picture.format
    if layout.is_rgb or layout.components[0].bits != 8 or layout.name.startswith(("pal", "mono")):
        grey = picture.reformat(format="gray")
    else:
        grey = picture
    plane = grey.planes[0]
    rows = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)  # type: ignore[call-overload]
    luma: Luma = rows[:, : plane.width]
    orientation = orientation_of(picture)
    return luma if orientation is None else np.ascontiguousarray(orient(luma, orientation))
