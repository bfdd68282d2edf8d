"""The steps from pictures to the model's input, each a small generator that keeps the order.

    sight -> locate -> collect -> prepare

``Reader.read`` and ``Reader.stream`` are made of the same ones, so a frame gets the same answer in either.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame

from ..errors import InputError
from ..inference import InputSpec
from ..recording import Planes, orientation_of, split, to_planes, to_rgb
from .model_input import FieldOfView, find_field_of_view, preprocess_planes

__all__ = [
    "FIELD_FRAMES",
    "Batch",
    "Buffers",
    "Collected",
    "Prepared",
    "Sighted",
    "check_frame",
    "collect",
    "locate",
    "prepare",
]

Frame = npt.NDArray[np.uint8]

# Frames that the field of view is found in: at 2 to 6 a second, 5 to 16 s of an examination.
FIELD_FRAMES = 32
# Frames without a picture take no room in a batch; this many times its size end it, so that progress shows.
_MOST_EMPTY = 8


@dataclass(frozen=True, slots=True)
class Sighted:
    """A frame by its index: decoded or uint8 RGB HxWx3, or None and the ``detail`` of why it has no picture.

    ``duplicate_of`` is the index of the frame whose answer it takes (``gate``); then its picture is let go.
    """

    index: int
    picture: VideoFrame | Frame | None
    detail: str = ""
    duplicate_of: int | None = None

    @property
    def shape(self) -> tuple[int, int] | None:
        """Height and width of the upright picture, pixels."""
        if self.picture is None:
            return None
        if isinstance(self.picture, VideoFrame):
            stored = self.picture.height, self.picture.width
            orientation = orientation_of(self.picture)
            return stored[::-1] if orientation is not None and orientation.transposed else stored
        height, width = self.picture.shape[:2]
        return height, width

    @property
    def weight(self) -> int:
        """Bytes of the picture, roughly: what its planes take without subsampling is half as much again, or twice."""
        if self.picture is None:
            return 0
        if isinstance(self.picture, VideoFrame):
            return self.picture.height * self.picture.width * 3 // 2
        return self.picture.nbytes

    def planes(self) -> Planes | None:
        """Its red, green and blue apart."""
        if self.picture is None:
            return None
        return to_planes(self.picture) if isinstance(self.picture, VideoFrame) else split(self.picture)

    def rgb(self) -> Frame | None:
        """The picture as uint8 RGB HxWx3, full range."""
        return to_rgb(self.picture) if isinstance(self.picture, VideoFrame) else self.picture


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a batch knows of a frame: its ``row`` in the pixels, None where it has no picture."""

    index: int
    row: int | None
    detail: str = ""
    duplicate_of: int | None = None


@dataclass(frozen=True, slots=True)
class Collected:
    """Frames in order, and the ``pictures`` of those that have one; ``size`` is how many there may be."""

    frames: list[Prepared]
    pictures: list[Sighted]
    field_of_view: FieldOfView | None
    size: int


@dataclass(frozen=True, slots=True)
class Batch:
    """Frames in order; ``pixels`` uint8 RGB (n, size, size, 3) holds those that have a picture, in the same order.

    ``pictures`` are these pictures as decoded, by row.
    """

    frames: list[Prepared]
    pixels: Frame
    field_of_view: FieldOfView | None
    pictures: list[Sighted]


class Buffers:
    """Arrays that batches are written to, used again once they are given back. Serves any thread."""

    def __init__(self) -> None:
        self._free: deque[Frame] = deque(maxlen=16)

    def take(self, shape: tuple[int, ...]) -> Frame:
        """An array of that shape, with whatever is in it."""
        try:
            while True:
                array = self._free.popleft()
                if array.shape == shape:
                    return array
        except IndexError:
            return np.empty(shape, np.uint8)

    def give(self, pixels: Frame) -> None:
        """Take back the pixels of a batch, which nobody reads any more."""
        self._free.append(pixels if pixels.base is None else pixels.base)


def locate(
    sighted: Iterable[Sighted], spec: InputSpec, field_of_view: FieldOfView | None = None
) -> Iterator[tuple[Sighted, FieldOfView | None]]:
    """Each frame with the field of view of all: the given, or that of the first ``FIELD_FRAMES`` pictures.

    Those are held back until it is found and not decoded twice. Raises ``InputError`` when a frame differs
    in size.
    """
    waiting: list[Sighted] = []
    pictures: list[Frame] = []
    settled = field_of_view is not None or spec.crop == "none"
    shape: tuple[int, int] | None = None
    for one in sighted:
        if one.picture is not None:
            shape = shape or one.shape
            if one.shape != shape:
                raise InputError(f"frame {one.index} is {one.shape}, the frames before it are {shape}")
        if settled:
            yield one, field_of_view
            continue
        waiting.append(one)
        if (rgb := one.rgb()) is not None:
            pictures.append(rgb)
        if len(pictures) == FIELD_FRAMES:
            field_of_view, settled = find_field_of_view(pictures), True
            yield from ((held, field_of_view) for held in waiting)
            waiting.clear()
            pictures.clear()
    if pictures:
        field_of_view = find_field_of_view(pictures)
    yield from ((held, field_of_view) for held in waiting)


def collect(located: Iterable[tuple[Sighted, FieldOfView | None]], *, batch: int) -> Iterator[Collected]:
    """Group frames so that each group holds ``batch`` pictures; the last group holds what is left."""
    frames: list[Prepared] = []
    pictures: list[Sighted] = []
    box: FieldOfView | None = None
    for one, box in located:
        if one.picture is None:
            frames.append(Prepared(one.index, None, one.detail, one.duplicate_of))
        else:
            frames.append(Prepared(one.index, len(pictures)))
            pictures.append(one)
        if len(pictures) == batch or len(frames) >= _MOST_EMPTY * batch:
            yield Collected(frames, pictures, box, batch)
            frames, pictures = [], []
    if frames:
        yield Collected(frames, pictures, box, batch)


def prepare(collected: Collected, spec: InputSpec, buffers: Buffers) -> Batch:
    """Their pixels as the model takes them. Serves several threads at once."""
    pixels = buffers.take((collected.size, spec.size, spec.size, 3))
    for one, out in zip(collected.pictures, pixels, strict=False):
        planes = one.planes()
        assert planes is not None  # it has a picture
        preprocess_planes(planes, spec, collected.field_of_view, out=out)
    pictures = collected.pictures
    return Batch(collected.frames, pixels[: len(pictures)], collected.field_of_view, pictures)


def check_frame(index: int, frame: Any) -> Frame:
    """The frame of a stream. Raises ``InputError`` for anything but uint8 RGB HxWx3."""
    if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        found = f"{frame.dtype} {frame.shape}" if isinstance(frame, np.ndarray) else type(frame).__name__
        raise InputError(f"frame {index} is {found}, needed is a uint8 RGB array of shape (height, width, 3)")
    return frame
