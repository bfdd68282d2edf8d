"""Reads frames as a pipe brings them, with the answers and events told at once; no file, no end that is known."""

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
from ..study import Event, FrameRecord, Ledger
from .pipe_formats import Feed

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
    """Answer what comes until it ends; returns how the frames add up.

    A pipe has no times: frame i is at i / ``capture_fps`` s, by default at the rate that the model assumes. A frame
    that is damaged or cut off is ``corrupt``; ``truncated`` says that the end cut one off. The field of view is
    found in the first frames, so some thirty come before the first answer.

    Raises ``InputError`` where the first bytes are no frame or nothing comes at all.
    """
    if capture_fps is not None and not (math.isfinite(capture_fps) and capture_fps > 0):
        raise UsageError(f"capture_fps is {capture_fps}, allowed is a number above 0")
    fps = capture_fps or reader.spec.events.assumed_capture_fps
    events = EventStream(reader.spec, median_distance_s=1 / fps, time_kind="capture")
    came: deque[bool] = deque()
    at = classified = 0

    def sound() -> Iterator[npt.NDArray[np.uint8]]:
        for rgb in feed.read(file):
            came.append(rgb is not None)
            if rgb is not None:
                yield rgb

    def tell(probabilities: npt.NDArray[np.float32] | None) -> None:
        nonlocal at
        if probabilities is None:
            record = FrameRecord(at, "corrupt", time_s=at / fps, detail="damaged")
        else:
            record = FrameRecord(at, "classified", time_s=at / fps, probabilities=probabilities)
        on_frame(record)
        for event in events.add([record]):
            on_event(event)
        at += 1

    with closing(reader.stream(sound())) as predictions:
        for prediction in predictions:
            while not came.popleft():
                tell(None)
            tell(prediction.probabilities)
            classified += 1
    for _ in came:
        tell(None)
    for event in events.finish():
        on_event(event)
    if not at:
        raise InputError("no frame came", hint="send frames as --stdin says, and close the pipe at the end")
    return Ledger(
        container=at,
        container_source="unknown",
        truncated=feed.truncated,
        classified=classified,
        corrupt=at - classified,
    )
