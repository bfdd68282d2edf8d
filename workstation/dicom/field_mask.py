"""Find the field of view by what changes in a recording, to blank all else: a panel of a viewer stands still.

mask = find_field(container, box)
if isinstance(mask, FieldMask):
    blanked = mask.blank(rgb)
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt

from capsule_edge.runtime.recording import Container, fetch

__all__ = ["FieldMask", "UnknownField", "find_field", "mask_of_pictures"]

Pixels = npt.NDArray[np.uint8]
Box = tuple[int, int, int, int]

# Pictures that are compared, evenly spread; fewer than the second number tell too little.
_SAMPLES, _FEWEST = 64, 8
# Rows that are compared at once, which bounds the memory.
_BAND = 64
# Brightest value (0..255) of the border around the field of view, after lossy coding.
_DARK = 24
# A pixel that changes is away from its median by more than lossy coding alone moves it, in this share of the pictures.
_CHANGE, _SHARE = 12, 0.2
# A field of view fills this share of its box (a circle 0.78), or of the frame if it touches the frame's border.
_LEAST_OF_BOX, _LEAST_AT_BORDER = 0.3, 0.6


@dataclass(frozen=True)
class FieldMask:
    """The field of view of a recording: 1 inside, 0 outside, uint8 (height, width)."""

    inside: Pixels = field(repr=False)

    def blank(self, rgb: Pixels) -> Pixels:
        """Return a picture, uint8 RGB (height, width, 3), that is black outside the field of view."""
        return np.ascontiguousarray(rgb * self.inside[:, :, None])

    @property
    def digest(self) -> str:
        """SHA-256 of the mask."""
        return hashlib.sha256(repr(self.inside.shape).encode() + self.inside.tobytes()).hexdigest()


@dataclass(frozen=True)
class UnknownField:
    """The reason why the field of view is not known."""

    reason: str


def find_field(container: Container, box: Box | None) -> FieldMask | UnknownField:
    """Return the field of view of a recording, from pictures that are evenly spread over it.

    Args:
        container: of the recording.
        box: (left, top, width, height) of the field of view; None where it is not known.
    """
    places = np.linspace(0, container.present - 1, min(_SAMPLES, container.present))
    wanted = {round(place) for place in places.tolist()}
    return mask_of_pictures((frame.rgb() for frame in fetch(container, wanted)), box)


def mask_of_pictures(pictures: Iterable[Pixels], box: Box | None) -> FieldMask | UnknownField:
    """Return the field of view that pictures of one recording share.

    It is the convex hull of the largest area that changes from picture to picture, inside the box. What stands still
    and is bright inside the hull is not part of it. Text that is written over the field of view and changes stays.

    Args:
        pictures: uint8 RGB (height, width, 3), of one size.
        box: (left, top, width, height) of the field of view; None where it is not known.
    """
    stack = list(pictures)
    if len(stack) < _FEWEST:
        return UnknownField(
            f"{len(stack)} pictures are too few to tell the field of view, needed are {_FEWEST}"
        )
    moving, still = _tell_change(np.stack(stack))
    inside = _largest(moving * _inside_box(moving.shape, box))
    if inside is None:
        return UnknownField(
            "nothing in the pictures changes, so the field of view cannot be told from a panel"
        )
    if problem := _problem(inside, box):
        return UnknownField(problem)
    # With the soft edge of letters.
    still = np.asarray(cv2.dilate(still, np.ones((5, 5), np.uint8)), np.uint8)
    return FieldMask(inside * (1 - still))


def _tell_change(stack: Pixels) -> tuple[Pixels, Pixels]:
    """Return which pixels of a stack of pictures change in a fair share of them, and which are bright and stand still.

    Args:
        stack: uint8 RGB (pictures, height, width, 3). Red alone tells too little: mucosa in bright light is always red.
    """
    moving, still = (np.zeros(stack.shape[1:3], np.uint8) for _ in range(2))
    for top in range(0, stack.shape[1], _BAND):
        band = stack[:, top : top + _BAND].astype(np.int16)
        middle = np.partition(band, len(band) // 2, axis=0)[len(band) // 2]
        away = (np.abs(band - middle) > _CHANGE).any(axis=-1)
        moving[top : top + _BAND] = away.mean(axis=0) >= _SHARE
        still[top : top + _BAND] = ~away.any(axis=0) & (middle.max(axis=-1) > _DARK)
    return moving, still


def _inside_box(shape: tuple[int, ...], box: Box | None) -> Pixels:
    inside = np.zeros(shape, np.uint8)
    left, top, width, height = box or (0, 0, shape[1], shape[0])
    inside[top : top + height, left : left + width] = 1
    return inside


def _largest(moving: Pixels) -> Pixels | None:
    """Return the convex hull of the largest area; None without one."""
    # Letters that touch the field of view by a pixel or two are parted from it.
    parted = np.asarray(cv2.morphologyEx(moving, cv2.MORPH_OPEN, np.ones((5, 5), np.uint8)), np.uint8)
    count, areas, measures, _ = cv2.connectedComponentsWithStats(parted)
    if count < 2:
        return None
    largest = 1 + int(measures[1:, cv2.CC_STAT_AREA].argmax())
    hull = cv2.convexHull(cv2.findNonZero((areas == largest).astype(np.uint8)))
    mask = np.zeros(moving.shape, np.uint8)
    cv2.fillConvexPoly(mask, hull, 1)
    return mask


def _problem(inside: Pixels, box: Box | None) -> str:
    """Return why an area is no field of view; empty for one that may be."""
    area = int(inside.sum())
    whole = box[2] * box[3] if box else inside.size
    if area < _LEAST_OF_BOX * whole:
        return f"the area that changes fills {area / whole:.0%} of the field of view, needed are {_LEAST_OF_BOX:.0%}"
    border = inside[0].any() or inside[-1].any() or inside[:, 0].any() or inside[:, -1].any()
    if border and area < _LEAST_AT_BORDER * inside.size:
        return (
            f"the area that changes reaches the border of the picture and fills {area / inside.size:.0%} of it, "
            f"allowed are {_LEAST_AT_BORDER:.0%} or more: it may be a panel"
        )
    return ""
