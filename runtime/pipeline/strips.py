"""Make the strips of events, which the report shows: small pictures of frames that are decoded again at the end.

A frame is decoded with all pictures back to its key frame, which takes time. So the strips of the best events come
first, and a strip is left out if it would bring the number of pictures decoded above a share of the recording.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import chain

import cv2
import numpy as np
import numpy.typing as npt

from ..events import StripChooser
from ..inference import InputSpec
from ..preprocessing import FieldOfView, preprocess_frame
from ..recording import Container, Frame, decoding_runs, fetch
from ..study import Columns, Event, StripPicture
from .parallel import map_ordered

__all__ = ["make_strips"]

Runs = npt.NDArray[np.int64]

# Side of a small picture, pixels, and its JPEG quality: some 4 kB.
_SIDE = 128
_QUALITY = 80
# The report has room for the strips of some 150 events. This also bounds the memory that strips take.
_MOST_STRIPS = 200
# Pictures that may be decoded again: a part of the recording, or this many of a short one, which take a second.
_SHARE = 10
_AT_LEAST = 2000
# The frames are decoded in this many parts, each in a thread. It does not follow the number of cores, because no
# picture may depend on that.
_PARTS = 2


def make_strips(
    container: Container,
    events: Sequence[Event],
    every: Columns,
    spec: InputSpec,
    field_of_view: FieldOfView | None,
    *,
    gap_s: float,
    threads: int,
) -> dict[int, tuple[StripPicture, ...]]:
    """Return the strip of each event by event id; events without a strip are left out.

    The strips do not depend on the number of threads.

    Args:
        container: the recording.
        events: in the order in which to look at them.
        every: the columns of all its frames.
        spec: input of the model; the pictures are cropped as its input is.
        field_of_view: of the recording.
        gap_s: as in ``StripChooser``.
        threads: number of threads, at least 1.

    Raises:
        InputError: the recording changed since it was scanned.
    """
    runs = decoding_runs(container)
    chosen = _choose(runs, events, every, gap_s, packets=len(container.packets))
    small = replace(spec, size=_SIDE)

    def draw(part: list[int]) -> list[StripPicture]:
        return [_draw(frame, small, field_of_view) for frame in fetch(container, part)]

    pictures: dict[int, StripPicture] = {}
    for drawn in map_ordered(
        draw, _split(runs, chosen.values()), threads=min(threads, _PARTS), name="strips"
    ):
        pictures.update((picture.index, picture) for picture in drawn)
    return {
        event: tuple(pictures[index] for index in indices if index in pictures)
        for event, indices in chosen.items()
    }


def _choose(
    runs: Runs, events: Sequence[Event], every: Columns, gap_s: float, *, packets: int
) -> dict[int, list[int]]:
    """Return the frames of each strip by event id.

    Args:
        runs: from ``decoding_runs``.
        packets: number of packets of the recording.
    """
    left = max(packets // _SHARE, _AT_LEAST)
    needed = np.zeros(packets, np.bool_)
    chooser = StripChooser(every, gap_s=gap_s, cost=runs[:, 1] - runs[:, 0])
    chosen: dict[int, list[int]] = {}
    for event in events:
        if len(chosen) == _MOST_STRIPS:
            break
        indices = chooser.choose(event)
        spans = _join(runs[indices])
        new = sum(int(np.count_nonzero(~needed[first:end])) for first, end in spans)
        if not indices or new > left:
            continue
        left -= new
        for first, end in spans:
            needed[first:end] = True
        chosen[event.id] = indices
    return chosen


def _join(runs: Runs) -> list[tuple[int, int]]:
    """Return the ranges that cover the same packets and do not overlap, in order."""
    spans: list[tuple[int, int]] = []
    for first, end in sorted(map(tuple, runs.tolist())):
        if spans and first <= spans[-1][1]:
            spans[-1] = spans[-1][0], max(end, spans[-1][1])
        else:
            spans.append((first, end))
    return spans


def _split(runs: Runs, strips: Iterable[Sequence[int]]) -> list[list[int]]:
    """Return the frames of strips in ``_PARTS`` parts that take about as long to decode.

    No picture is decoded for two parts.
    """
    wanted = sorted(set(chain.from_iterable(strips)))
    spans = _join(runs[wanted])
    decoded = np.cumsum([end - first for first, end in spans])
    begins = np.array([first for first, _ in spans])
    parts: list[list[int]] = [[] for _ in range(_PARTS)]
    for index in wanted:
        span = int(np.searchsorted(begins, runs[index, 0], side="right")) - 1
        parts[int(_PARTS * (decoded[span] - 1) // decoded[-1])].append(index)
    return [part for part in parts if part]


def _draw(frame: Frame, spec: InputSpec, field_of_view: FieldOfView | None) -> StripPicture:
    """Return a frame as a small JPEG picture."""
    bgr = cv2.cvtColor(preprocess_frame(frame, spec, field_of_view), cv2.COLOR_RGB2BGR)
    options = [cv2.IMWRITE_JPEG_QUALITY, _QUALITY, cv2.IMWRITE_JPEG_OPTIMIZE, 1]
    return StripPicture(frame.index, _SIDE, cv2.imencode(".jpg", bgr, options)[1].tobytes())
