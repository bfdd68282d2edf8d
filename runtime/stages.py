"""The steps from pictures to the model's input, each a small generator that keeps the order.

    sight -> locate -> prepare -> gather

``Reader.read`` and ``Reader.stream`` are made of the same ones, so a frame gets the same answer in either.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .errors import InputError
from .preprocess import FieldOfView, find_field_of_view, preprocess
from .spec import InputSpec
from .video import Container, decode

__all__ = ["Batch", "Prepared", "Sighted", "gather", "locate", "prepare", "sight"]

Frame = npt.NDArray[np.uint8]

# Frames that the field of view is found in: at 2 to 6 a second, 5 to 16 s of an examination.
FIELD_FRAMES = 32


@dataclass(frozen=True, slots=True)
class Sighted:
    """A frame by its index: uint8 RGB HxWx3, or None and the ``detail`` of why it has no picture."""

    index: int
    rgb: Frame | None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A frame as the model takes it, uint8 RGB (size, size, 3); None where it has no picture."""

    index: int
    pixels: Frame | None
    detail: str
    field_of_view: FieldOfView | None


@dataclass(frozen=True, slots=True)
class Batch:
    """Frames in order; ``pixels`` (n, size, size, 3) holds those that have a picture, in the same order."""

    frames: list[Prepared]
    pixels: Frame


def sight(container: Container, wanted: Collection[int]) -> Generator[Sighted]:
    """The wanted frames of a recording, by index; decoding ends behind the last of them."""
    last = max(wanted, default=-1)
    with closing(decode(container)) as pictures:  # type: ignore[type-var]
        for picture in pictures:
            if picture.index in wanted:
                rgb = picture.rgb() if picture.status == "ok" else None
                yield Sighted(picture.index, rgb, picture.detail)
            if picture.index >= last:
                return


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
    shape: tuple[int, ...] | None = None
    for one in sighted:
        if one.rgb is not None:
            shape = shape or one.rgb.shape
            if one.rgb.shape != shape:
                raise InputError(f"frame {one.index} is {one.rgb.shape}, the frames before it are {shape}")
        if settled:
            yield one, field_of_view
            continue
        waiting.append(one)
        if one.rgb is not None:
            pictures.append(one.rgb)
        if len(pictures) == FIELD_FRAMES:
            field_of_view, settled = find_field_of_view(pictures), True
            yield from ((held, field_of_view) for held in waiting)
            waiting.clear()
            pictures.clear()
    if pictures:
        field_of_view = find_field_of_view(pictures)
    yield from ((held, field_of_view) for held in waiting)


def prepare(located: Iterable[tuple[Sighted, FieldOfView | None]], spec: InputSpec) -> Iterator[Prepared]:
    """The model's input of each frame; the picture itself is let go."""
    for one, box in located:
        pixels = None if one.rgb is None else preprocess(one.rgb, spec, box)
        yield Prepared(one.index, pixels, one.detail, box)


def gather(prepared: Iterable[Prepared], spec: InputSpec, *, batch: int) -> Iterator[Batch]:
    """``batch`` frames at a time, the last time what is left."""
    frames: list[Prepared] = []
    for one in prepared:
        frames.append(one)
        if len(frames) == batch:
            yield _stack(frames, spec)
            frames = []
    if frames:
        yield _stack(frames, spec)


def _stack(frames: list[Prepared], spec: InputSpec) -> Batch:
    pixels = [one.pixels for one in frames if one.pixels is not None]
    if not pixels:
        return Batch(frames, np.empty((0, spec.size, spec.size, 3), np.uint8))
    return Batch(frames, np.stack(pixels))
