"""Group frames into batches and prepare them as model input.

    frames -> settle_field_of_view -> (mark_duplicates) -> make_batches -> prepare

Recordings and streams go through the same steps, so a frame gets the same answer in either.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import InputError
from ..inference import InputSpec
from ..recording import Frame
from .field_of_view import FieldOfView
from .model_input import preprocess_frame

__all__ = ["Batch", "PixelBuffers", "check_frame", "make_batches", "prepare"]

Pixels = npt.NDArray[np.uint8]

# A batch ends when it holds ``size`` images. Frames without an image do not count, but a batch also ends when it
# holds this many times ``size`` frames of any kind. A long stretch without images then still shows progress.
_MOST_EMPTY = 8


@dataclass(frozen=True, slots=True)
class Batch:
    """Consecutive frames that the model answers at once.

    Attributes:
        frames: in order, with and without an image.
        field_of_view: of the recording; None where the model needs none.
        size: number of frames with an image that the batch may hold.
    """

    frames: list[Frame]
    field_of_view: FieldOfView | None
    size: int

    @property
    def with_image(self) -> list[Frame]:
        """The frames that the model answers; their order is that of the rows of its answers."""
        return [frame for frame in self.frames if frame.image is not None]


class PixelBuffers:
    """Reuse the arrays that batches are written to. Serves several threads."""

    def __init__(self) -> None:
        self._free: deque[Pixels] = deque(maxlen=16)

    def take(self, shape: tuple[int, ...]) -> Pixels:
        """Return an uninitialised uint8 array of that shape."""
        try:
            while True:
                array = self._free.popleft()
                if array.shape == shape:
                    return array
        except IndexError:
            return np.empty(shape, np.uint8)

    def give(self, pixels: Pixels) -> None:
        """Take back an array that nobody reads any more."""
        self._free.append(pixels if pixels.base is None else pixels.base)


def make_batches(
    frames: Iterable[Frame], *, size: int, field_of_view: FieldOfView | None = None
) -> Iterator[Batch]:
    """Group frames so that each batch holds ``size`` images; the last batch holds what is left."""
    held: list[Frame] = []
    images = 0
    for frame in frames:
        held.append(frame)
        images += frame.image is not None
        if images == size or len(held) >= _MOST_EMPTY * size:
            yield Batch(held, field_of_view, size)
            held, images = [], 0
    if held:
        yield Batch(held, field_of_view, size)


def prepare(batch: Batch, spec: InputSpec, buffers: PixelBuffers) -> Pixels:
    """Return the batch's images as model input, uint8 RGB (images, size, size, 3). Serves several threads at once.

    Give the array back to ``buffers`` when nobody reads it any more.
    """
    frames = batch.with_image
    pixels = buffers.take((batch.size, spec.size, spec.size, 3))
    for frame, out in zip(frames, pixels, strict=False):
        preprocess_frame(frame, spec, batch.field_of_view, out=out)
    return pixels[: len(frames)]


def check_frame(index: int, frame: Any) -> Pixels:
    """Return the frame of a stream. Raise ``InputError`` for anything but uint8 RGB (height, width, 3)."""
    if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        found = f"{frame.dtype} {frame.shape}" if isinstance(frame, np.ndarray) else type(frame).__name__
        raise InputError(f"frame {index} is {found}, needed is a uint8 RGB array of shape (height, width, 3)")
    return frame
