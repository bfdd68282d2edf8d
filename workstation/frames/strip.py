"""Put several frames side by side into one picture, so that the page fetches a strip at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from .availability import FrameUnavailable
from .encoded import encode_jpeg, shrink_picture

__all__ = ["Strip", "choose_indices", "make_strip"]

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Strip:
    """Frames side by side, from left to right.

    Attributes:
        jpeg: the picture, quality 92, 4:4:4.
        indices: of the frames.
        unavailable: indices of the frames without a picture; their tiles are black.
        tile_width, tile_height: of each frame, pixels.
    """

    jpeg: bytes = field(repr=False)
    indices: tuple[int, ...]
    unavailable: tuple[int, ...]
    tile_width: int
    tile_height: int


def choose_indices(start: int, end: int, most: int) -> list[int]:
    """Return the frames of the range [start, end), or ``most`` of them, evenly spread and with both ends."""
    count = end - start
    if count <= most:
        return list(range(start, end))
    return [int(index) for index in np.linspace(start, end - 1, most).round()]


def make_strip(picture: Callable[[int], Pixels], indices: Sequence[int], height: int, width: int) -> Strip:
    """Return a strip.

    Args:
        picture: returns a frame's picture, uint8 RGB, or raises ``FrameUnavailable``.
        indices: of the frames, at least one.
        height, width: of a tile, pixels.
    """
    sheet = np.zeros((height, width * len(indices), 3), np.uint8)
    unavailable = []
    for place, index in enumerate(indices):
        try:
            small = shrink_picture(picture(index), max(height, width))
        except FrameUnavailable:
            unavailable.append(index)
            continue
        tall, wide = min(height, small.shape[0]), min(width, small.shape[1])
        sheet[:tall, place * width : place * width + wide] = small[:tall, :wide]
    return Strip(encode_jpeg(sheet), tuple(indices), tuple(unavailable), width, height)
