"""Read frames from a pipe and report each answer and event as it comes: there is no file, and no known end."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from ..errors import InputError, UsageError
from ..events import EventStream
from ..reader import Reader
from ..study import UNFAMILIAR, Event, FrameRecord, Ledger
from .pipe_formats import Feed, RgbArray

__all__ = ["read_pipe"]


def read_pipe(
    reader: Reader,
    file: BinaryIO,
    feed: Feed,
    *,
    capture_fps: float | None = None,
    on_frame: Callable[[FrameRecord], None],
    on_event: Callable[[Event], None],
) -> Ledger:
    """Classify frames until the feed ends.

    A pipe has no times: frame i is at i / ``capture_fps`` s. A damaged or cut-off frame has the status ``corrupt``.
    The field of view is found in the first frames, so about thirty frames come before the first answer.

    Args:
        reader: the opened model.
        file: the pipe; a network feed ignores it.
        feed: turns the bytes of the pipe into frames.
        capture_fps: frames per second of the capsule, above 0; by default the rate that the model assumes.
        on_frame: called with each frame, in order.
        on_event: called with each event once no later frame can change it.

    Returns:
        How the frames add up. ``truncated`` is True if the pipe ended inside a frame.

    Raises:
        UsageError: ``capture_fps`` is not a finite number above 0.
        InputError: no frame came, or the first bytes are not a frame.
    """
    if capture_fps is not None and not (math.isfinite(capture_fps) and capture_fps > 0):
        raise UsageError(
            f"capture_fps is {capture_fps}, allowed is a number above 0",
            hint="--capture-fps is the number of frames that the capsule records per second",
        )
    fps = capture_fps or reader.spec.events.assumed_capture_fps
    events = EventStream(reader.spec, median_distance_s=1 / fps, time_kind="capture")
    account = _Account(events, fps, on_frame, on_event)
    arrived: deque[bool] = deque()
    with closing(reader.stream(_sound_frames(feed, file, arrived))) as predictions:
        for prediction in predictions:
            while not arrived.popleft():
                account.add(None)
            account.add(prediction.probabilities, UNFAMILIAR if prediction.unfamiliar else "")
    for _ in arrived:
        account.add(None)
    return account.finish(truncated=feed.truncated)


def _sound_frames(feed: Feed, file: BinaryIO, arrived: deque[bool]) -> Iterator[RgbArray]:
    """Yield the undamaged frames, and note in ``arrived`` for each frame whether it is undamaged."""
    for rgb in feed.read(file):
        arrived.append(rgb is not None)
        if rgb is not None:
            yield rgb


class _Account:
    """Number the frames, call the callbacks, and count."""

    def __init__(
        self,
        events: EventStream,
        fps: float,
        on_frame: Callable[[FrameRecord], None],
        on_event: Callable[[Event], None],
    ) -> None:
        self._events, self._fps, self._on_frame, self._on_event = events, fps, on_frame, on_event
        self._count = self._classified = 0

    def add(self, probabilities: npt.NDArray[np.float32] | None, detail: str = "") -> None:
        """Report the next frame; without probabilities it is damaged."""
        index, time_s = self._count, self._count / self._fps
        if probabilities is None:
            record = FrameRecord(index, "corrupt", time_s=time_s, detail="damaged")
        else:
            record = FrameRecord(
                index, "classified", time_s=time_s, detail=detail, probabilities=probabilities
            )
            self._classified += 1
        self._count += 1
        self._on_frame(record)
        for event in self._events.add([record]):
            self._on_event(event)

    def finish(self, *, truncated: bool | None) -> Ledger:
        """Report the events that are still open, and return how the frames add up."""
        for event in self._events.finish():
            self._on_event(event)
        if not self._count:
            raise InputError(
                "no frame came", hint="send frames as --stdin says, and close the pipe at the end"
            )
        return Ledger(
            container=self._count,
            container_source="unknown",
            truncated=truncated,
            classified=self._classified,
            corrupt=self._count - self._classified,
        )
