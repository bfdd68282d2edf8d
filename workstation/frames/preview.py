"""Show the colours of a new recording within seconds: decode key frames alone, spread over the whole.

Each result is better than the one before. A bin has a colour only where one of its own frames was decoded.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np
import numpy.typing as npt

from capsule_edge.runtime.inference import InputSpec
from capsule_edge.runtime.preprocessing import (
    FieldOfView,
    find_field_of_view,
    mean_colours,
    preprocess_frame,
)
from capsule_edge.runtime.recording import (
    Container,
    Entries,
    Frame,
    FrameDecoder,
    ImageSeries,
    SeekError,
    find_entries,
    read_series,
    scan,
)

__all__ = ["Preview", "preview_recording"]

# Small: only the mean colour inside the field of view is taken.
_INPUT = InputSpec(64, preprocessing=2)
# Key frames in which the field of view is found, and the number after which results come.
_FIRST = 8


@dataclass(frozen=True, slots=True)
class Preview:
    """Length and colours of a recording that was not read yet.

    Attributes:
        frames: number of container frames.
        duration_s: from the first presented frame to the end of the last.
        colours: for each bin the mean red, green and blue (0..255) inside the field of view of one of its frames; None
            where none was decoded. Bin ``b`` of ``n`` holds the frames whose index * n // frames is ``b``.
        decoded: number of frames that were decoded.
        complete: every bin that holds a key frame was tried.
    """

    frames: int
    duration_s: float
    colours: tuple[tuple[int, int, int] | None, ...]
    decoded: int
    complete: bool


def preview_recording(
    path: str | Path, *, bins: int = 200, seconds: float = 1.5, stream: int | None = None
) -> Iterator[Preview]:
    """Yield what can be seen of a recording at once; the first result has its length and no colours.

    Args:
        path: of the recording.
        bins: number of colours, at least 1.
        seconds: begin no further frame after this time; listing the frames counts.
        stream: number of the video stream; None for the one with most pictures.

    Raises:
        InputError, UsageError: as ``scan``.
    """
    began = time.monotonic()
    container = scan(path, stream=stream)
    colours: list[tuple[int, int, int] | None] = [None] * bins
    yield Preview(container.frames, container.duration_s, tuple(colours), 0, False)
    painter, decoded, due, complete = _Painter(), 0, _FIRST, True
    with ExitStack() as stack:
        frame_at, indices = _open_frames(container, stack)
        for index in _spread(indices, bins, container.frames):
            if time.monotonic() - began >= seconds:
                complete = False
                break
            frame = frame_at(index)
            if frame is None or frame.image is None:
                continue
            decoded += 1
            for at, colour in painter.add(frame):
                colours[at * bins // container.frames] = colour
            if decoded == due:
                due *= 2
                yield Preview(container.frames, container.duration_s, tuple(colours), decoded, False)
    for at, colour in painter.finish():
        colours[at * bins // container.frames] = colour
    yield Preview(container.frames, container.duration_s, tuple(colours), decoded, complete)


class _Painter:
    """Take the mean colours of frames; the field of view is found in the first ones."""

    def __init__(self) -> None:
        self._first: list[Frame] = []
        self._box: FieldOfView | None = None

    def add(self, frame: Frame) -> Iterator[tuple[int, tuple[int, int, int]]]:
        """Yield (index, colour) of the frames whose colour is now known."""
        if self._box is not None:
            yield frame.index, self._mean(frame)
            return
        self._first.append(frame)
        if len(self._first) == _FIRST:
            yield from self.finish()

    def finish(self) -> Iterator[tuple[int, tuple[int, int, int]]]:
        """Yield the frames that still wait for a field of view."""
        first, self._first = self._first, []
        if first:
            self._box = find_field_of_view(frame.rgb() for frame in first)
            yield from ((frame.index, self._mean(frame)) for frame in first)

    def _mean(self, frame: Frame) -> tuple[int, int, int]:
        pixels = preprocess_frame(frame, _INPUT, self._box)
        red, green, blue = mean_colours(pixels[None], _INPUT)[0].round().astype(int).tolist()
        return red, green, blue


def _open_frames(
    container: Container, stack: ExitStack
) -> tuple[Callable[[int], Frame | None], npt.NDArray[np.int64]]:
    """Return a function that decodes a frame by itself (None where it cannot), and the indices that it takes."""
    if isinstance(container, ImageSeries):
        return _series_frames(container), np.arange(container.present)
    entries = find_entries(container)
    decoder = FrameDecoder(container)
    stack.callback(decoder.close)

    def frame_at(index: int) -> Frame | None:
        packet = int(entries.packets[entries.number_before(index)])
        try:
            return decoder.entry_frame(packet)
        except SeekError:
            return None

    return frame_at, _own_frames(container, entries)


def _own_frames(container: Container, entries: Entries) -> npt.NDArray[np.int64]:
    """Return the frames of the entries. The first packet need not show the first frame."""
    shown = entries.frames.copy()
    if container.order[0] != 0:
        shown = shown[1:]
    return shown


def _series_frames(series: ImageSeries) -> Callable[[int], Frame | None]:
    asked = 0

    def requests() -> Iterator[int]:
        while True:
            yield asked

    images = read_series(series, requests())

    def frame_at(index: int) -> Frame | None:
        nonlocal asked
        asked = index
        rgb = next(images)[1]
        return None if rgb is None else Frame(index, rgb)

    return frame_at


def _spread(indices: npt.NDArray[np.int64], bins: int, frames: int) -> Iterator[int]:
    """Yield one frame of each bin that has one, the one nearest to its middle: coarsely spread first, then finer."""
    for place in _coarse_first(bins):
        first, end = -(-place * frames // bins), -(-(place + 1) * frames // bins)
        held = indices[np.searchsorted(indices, first) : np.searchsorted(indices, end)]
        if len(held):
            yield int(held[np.argmin(np.abs(held - (first + end) / 2))])


def _coarse_first(number: int) -> Iterator[int]:
    """Yield the numbers below ``number`` once each, each far from the ones before (van der Corput's sequence)."""
    width = max(number - 1, 1).bit_length()
    for at in count():
        if at >= 1 << width:
            return
        turned = int(f"{at:0{width}b}"[::-1], 2)
        if turned < number:
            yield turned
