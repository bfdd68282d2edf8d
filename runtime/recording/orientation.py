"""Turn and mirror images as the file's display matrix says.

A capsule's recorder writes no display matrix; files recorded or re-encoded on a phone or tablet often have one. A
player shows the upright image, so everything here uses it: field of view, model, report and the size in ``study.json``.
Source: ISO/IEC 14496-12, 6.2.2 (the matrix of a track) and FFmpeg's ``display.h``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from av.sidedata.sidedata import SideDataContainer
from av.video.frame import VideoFrame

from ..errors import InputError

__all__ = ["Orientation", "orient", "orientation_of"]


@dataclass(frozen=True, slots=True)
class Orientation:
    """The turn of an image: first exchange rows and columns (``transposed``), then reverse columns and rows."""

    transposed: bool
    columns_reversed: bool
    rows_reversed: bool


def orientation_of(picture: VideoFrame) -> Orientation | None:
    """Return how to turn a decoded image; None for one that is upright.

    Raises:
        InputError: the matrix is anything but a quarter turn or a mirror.
    """
    # Not ``picture.side_data``: image and side data would refer to each other, and such a cycle stays in memory until
    # Python's garbage collector runs, hundreds of images later.
    data: Any = SideDataContainer(picture).get("DISPLAYMATRIX")  # type: ignore[call-arg]
    if data is None:
        return None
    # 16.16 fixed point: a pixel (x, y) is shown at (a x + c y, b x + d y).
    a, b, _, c, d = (int(value) for value in np.frombuffer(bytes(data), np.int32)[:5])
    if b == c == 0 and a and d:
        turned = Orientation(False, a < 0, d < 0)
        return turned if a < 0 or d < 0 else None
    if a == d == 0 and b and c:
        return Orientation(True, c < 0, b < 0)
    raise InputError(
        f"the picture is to be shown by the matrix {a / 65536:g} {b / 65536:g} {c / 65536:g} {d / 65536:g}, "
        "allowed are quarter turns and mirrors",
        hint="export the recording upright",
    )


def orient(plane: npt.NDArray[Any], orientation: Orientation) -> npt.NDArray[Any]:
    """Return an upright view of one channel (height, width)."""
    if orientation.transposed:
        plane = plane.T
    return plane[:: -1 if orientation.rows_reversed else 1, :: -1 if orientation.columns_reversed else 1]
