"""Choose the frames to read, list all container frames, and count them in the ledger."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..errors import UsageError
from ..recording import plain_seconds
from .frame_table import FrameTable, columns
from .records import STATUSES, FrameRecord, Ledger, Source

if TYPE_CHECKING:
    from ..preprocessing import FieldOfView
    from ..recording import Container

__all__ = ["choose_frames", "count_frames", "describe_source", "list_frames"]


def choose_frames(container: Container, start_s: float | None, end_s: float | None, every: int) -> range:
    """Return the indices of the frames to read.

    Args:
        container: the recording.
        start_s: read from this time on, seconds of container time; None from the beginning.
        end_s: read up to this time, exclusive, seconds of container time; None to the end.
        every: read every n-th frame of the interval, beginning with its first; 1 or more.

    Raises:
        UsageError: a value is out of range, or no frame lies in the interval.
    """
    if every < 1:
        raise UsageError(f"every is {every}, allowed is 1 or more")
    for name, value in (("start", start_s), ("end", end_s)):
        if value is not None and not (math.isfinite(value) and value >= 0):
            raise UsageError(f"{name} is {value} s, allowed is 0 or more")
    # Compare with 6 decimals: the files have as many, and users copy times from them.
    times_s = [round(time_s, 6) for time_s in container.times_s]
    first = 0 if start_s is None else bisect_left(times_s, round(start_s, 6))
    after = len(times_s) if end_s is None else bisect_left(times_s, round(end_s, 6))
    if first >= after:
        raise UsageError(
            f"no frame lies from {plain_seconds(start_s or 0)} s to "
            f"{'the end' if end_s is None else f'{plain_seconds(end_s)} s'}",
            hint=f"the recording has frames from 0 to {plain_seconds(times_s[-1])} s",
        )
    return range(first, after, every)


def list_frames(container: Container, wanted: range, *, labels: int) -> FrameTable:
    """Return a table of all container frames before the first is read.

    Args:
        container: the recording.
        wanted: indices of the frames to read; their status is ``unread``. The other frames of the file are ``skipped``,
            and frames that the container announces but does not hold are ``missing``.
        labels: number of labels of the model.
    """
    statuses = np.full(container.frames, STATUSES.index("missing"), np.int8)
    statuses[: container.present] = STATUSES.index("skipped")
    statuses[wanted.start : wanted.stop : wanted.step] = STATUSES.index("unread")
    return FrameTable(
        count=container.frames,
        labels=labels,
        pts=container.pts,
        times_s=container.times_s,
        statuses=statuses,
    )


def count_frames(container: Container, records: Sequence[FrameRecord]) -> Ledger:
    """Return the ledger.

    Args:
        container: the recording.
        records: records of all container frames.
    """
    counts = np.bincount(columns(records).status, minlength=len(STATUSES)).tolist()
    return Ledger(
        container=container.frames,
        container_source=container.container_source,
        truncated=container.truncated,
        edited_out=container.edited_out,
        **dict(zip(STATUSES, counts, strict=True)),
    )


def describe_source(
    container: Container,
    sha256: str,
    capture_fps: float | None,
    field_of_view: FieldOfView | None,
    *,
    anonymous: bool = False,
    stream_sha256: str | None = None,
) -> Source:
    """Return the description of the recording for the study.

    Args:
        container: the recording.
        sha256: SHA-256 of the file, 64 hexadecimal digits.
        capture_fps: frames per second at which the capsule recorded; None if not known.
        field_of_view: field of view of the recording; None if it was not found or not needed.
        anonymous: the hash stands in place of the file's name.
        stream_sha256: SHA-256 of the bit stream inside the file; None where the file is the stream.
    """
    return Source(
        name=sha256 if anonymous else container.path.name,
        sha256=sha256,
        codec=container.codec,
        width=container.height if container.transposed else container.width,
        height=container.width if container.transposed else container.height,
        time_base=f"{container.time_base.numerator}/{container.time_base.denominator}",
        start_pts=container.start_pts,
        duration_s=container.duration_s,
        time_kind=container.time_kind,
        capture_fps=capture_fps,
        field_of_view=field_of_view,
        times=container.times,
        damage_detection=container.damage_detection,
        stream_sha256=stream_sha256,
    )
