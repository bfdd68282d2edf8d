"""Turn and mirror images as the file's display matrix, or the Exif orientation of a JPEG in it, says.

A capsule's recorder writes no display matrix; files recorded or re-encoded on a phone or tablet often have one. A
player shows the upright image, so everything here uses it: field of view, model, report and the size in ``study.json``.
Source: ISO/IEC 14496-12, 6.2.2 (the matrix of a track) and FFmpeg's ``display.h``.
"""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import numpy as np
import numpy.typing as npt
from av.sidedata.sidedata import SideDataContainer, Type
from av.video.frame import VideoFrame

from ..errors import InputError
from .warning import RecordingWarning

__all__ = ["Orientation", "Orientations", "odd_orientation", "orient", "orientation_of"]

# a, b, c, d in 16.16 fixed point: a pixel (x, y) is shown at (a x + c y, b x + d y).
Matrix = tuple[int, int, int, int]

# Writers round a quarter turn to whole degrees or to few bits. Up to 1 degree off counts as that quarter turn.
_SLANT = math.tan(math.radians(1))
# Codecs whose images state an orientation for those that follow.
_LASTING = frozenset({"h264", "hevc"})
# The last kind of side data that every supported PyAV names. FFmpeg adds kinds: Exif, for example.
_LAST_NAMED: int = Type["VIDEO_HINT"].value  # type: ignore[assignment]


@dataclass(frozen=True, slots=True)
class Orientation:
    """The turn of an image: first exchange rows and columns (``transposed``), then reverse columns and rows."""

    transposed: bool
    columns_reversed: bool
    rows_reversed: bool


def orientation_of(picture: VideoFrame) -> Orientation | None:
    """Return how to turn a decoded image; None for one that is upright.

    A matrix that maps the image to a line or a point (all zeros, say) is no orientation: such an image is upright.

    Raises:
        InputError: the matrix is more than 1 degree away from every quarter turn and mirror.
    """
    matrix = _display_matrix(picture)
    if matrix is not None:
        return _turn(matrix)
    lasting = picture.opaque
    return lasting if isinstance(lasting, Orientation) else None


class Orientations:
    """Follow the orientation through the images of a recording, in the order in which the decoder returns them.

    H.264 and HEVC state an orientation with one image, and it holds until the next (ITU-T H.264, D.2.24; H.265,
    D.3.17). FFmpeg gives it to the first image alone. The other images get it here, and ``orientation_of`` finds it.
    At a key frame that states none, the orientation of the recording's first image holds: some encoders state it once.

    Args:
        codec: FFmpeg's name of the codec.
        first: orientation of the recording's first image.
    """

    def __init__(self, codec: str, first: Orientation | None = None) -> None:
        self._lasting = codec in _LASTING
        self._first = self._last = first

    def follow(self, picture: VideoFrame) -> Orientation | None:
        """Return the orientation of the next image, and give it to the image. Raises as ``orientation_of`` does."""
        if not self._lasting:
            return orientation_of(picture)
        matrix = _display_matrix(picture)
        if matrix is not None:
            self._last = _turn(matrix)
        else:
            if picture.key_frame:
                self._last = self._first
            if self._last is not None:
                # A new object for each image: PyAV tells marks apart by identity, and forgets one with its image.
                picture.opaque = replace(self._last)
        return self._last

    def shows(self, picture: VideoFrame, *, transposed: bool) -> bool:
        """Follow the next image, and return whether it is shown in the recording's size.

        Args:
            picture: a decoded image whose stored size is the recording's.
            transposed: whether the recording's upright images have the stored rows as columns.
        """
        try:
            orientation = self.follow(picture)
        except InputError:
            return False
        turned = orientation is not None and orientation.transposed
        return turned == transposed or picture.width == picture.height


def odd_orientation(picture: VideoFrame) -> list[RecordingWarning]:
    """Return a warning for each oddity in the side data of a decoded image. Raises as ``orientation_of`` does."""
    found = []
    unnamed = sorted(set(_kinds(picture)))
    if unnamed and unnamed[-1] > _LAST_NAMED:
        numbers = ", ".join(str(number) for number in unnamed if number > _LAST_NAMED)
        found.append(
            RecordingWarning(
                "side_data",
                f"the images carry side data of a kind that is not known here (number {numbers} of FFmpeg; 31 is"
                " Exif). Only the orientation in it was used.",
            )
        )
    matrix = _display_matrix(picture)
    if matrix is not None and (oddity := _describe(matrix)):
        shown = " ".join(f"{value / 65536:g}" for value in matrix)
        found.append(RecordingWarning("display_matrix", f"the display matrix {shown} {oddity}"))
    return found


def orient(plane: npt.NDArray[Any], orientation: Orientation) -> npt.NDArray[Any]:
    """Return an upright view of one channel (height, width)."""
    if orientation.transposed:
        plane = plane.T
    return plane[:: -1 if orientation.rows_reversed else 1, :: -1 if orientation.columns_reversed else 1]


def _display_matrix(picture: VideoFrame) -> Matrix | None:
    # Not ``picture.side_data``: image and side data would refer to each other, and such a cycle stays in memory until
    # Python's garbage collector runs, hundreds of images later.
    try:
        entries: Any = SideDataContainer(picture)  # type: ignore[call-arg]
        # Most images have no side data. Counting costs a fifth of looking a kind up.
        data = entries.get("DISPLAYMATRIX") if len(entries) else None
    except ValueError:
        return _matrix_beside_unnamed(picture)
    return None if data is None else _parse(data)


def _matrix_beside_unnamed(picture: VideoFrame) -> Matrix | None:
    """Return the display matrix of an image with side data of a kind that PyAV 18 does not name.

    PyAV lists the side data up to that kind and then raises ``ValueError``; what was listed can be read. FFmpeg puts
    the matrix before the kinds that PyAV 18 lacks, in all decoders but that of multi-layer HEVC. A matrix behind them
    is known by its angle alone.
    """
    for entry in _listed(picture):
        with suppress(ValueError):
            if entry.type is Type.DISPLAYMATRIX:
                return _parse(entry)
    # Counterclockwise degrees; 0 without a matrix.
    angle = math.radians(picture.rotation)
    if not -math.tau < angle < math.tau or not angle:
        return None
    cosine, sine = round(65536 * math.cos(angle)), round(65536 * math.sin(angle))
    return cosine, -sine, sine, cosine


def _listed(picture: VideoFrame) -> list[Any]:
    """Return the side data of an image, up to the first entry of a kind that PyAV does not name."""
    container: Any = SideDataContainer.__new__(SideDataContainer)
    with suppress(ValueError):
        container.__init__(picture)
    entries: list[Any] = []
    for at in count():
        try:
            entries.append(container[at])
        except IndexError:
            return entries
    raise AssertionError  # ``count`` does not end


def _kinds(picture: VideoFrame) -> list[int]:
    """Return FFmpeg's numbers of the kinds of side data, up to the first that PyAV does not name."""
    kinds = []
    for entry in _listed(picture):
        try:
            kinds.append(int(entry.type.value))
        except ValueError as error:  # "31 is not a valid Type"
            kinds.append(int(str(error).split()[0]))
    return kinds


def _parse(data: Any) -> Matrix:
    a, b, _, c, d = (int(value) for value in np.frombuffer(bytes(data), np.int32)[:5])
    return a, b, c, d


def _is_singular(matrix: Matrix) -> bool:
    a, b, c, d = matrix
    return a * d == b * c


def _turn(matrix: Matrix) -> Orientation | None:
    return None if _is_singular(matrix) else _nearest(matrix)


def _nearest(matrix: Matrix) -> Orientation | None:
    """Return the quarter turn or mirror within 1 degree of a matrix; None for no turn."""
    a, b, c, d = matrix
    # One unit more than the slant, for the rounding of the matrix itself.
    straight = abs(b) <= _SLANT * abs(a) + 1 and abs(c) <= _SLANT * abs(d) + 1
    if straight and not a == d == 0:
        return Orientation(False, a < 0, d < 0) if a < 0 or d < 0 else None
    if abs(a) <= _SLANT * abs(b) + 1 and abs(d) <= _SLANT * abs(c) + 1:
        return Orientation(True, c < 0, b < 0)
    raise InputError(
        f"the picture is to be shown by the matrix {a / 65536:g} {b / 65536:g} {c / 65536:g} {d / 65536:g}, "
        "allowed are quarter turns and mirrors",
        hint="export the recording upright",
    )


def _describe(matrix: Matrix) -> str:
    """Return what is odd about a display matrix and what was done; empty for an exact quarter turn or mirror."""
    a, b, c, d = matrix
    if _is_singular(matrix):
        return "would show no image; the images were taken as upright"
    _nearest(matrix)  # raises for what cannot be shown
    if not (b == c == 0 or a == d == 0):
        return "is within 1 degree of a quarter turn or mirror, and was taken as that"
    return ""
