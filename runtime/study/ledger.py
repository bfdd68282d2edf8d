"""The account of a recording: which frames are wanted, what became of each, and how they add up."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..errors import UsageError
from .frame_table import FrameTable, columns
from .records import STATUSES, FrameRecord, Ledger, Source

if TYPE_CHECKING:
    from ..preprocessing import FieldOfView
    from ..recording import Container

__all__ = ["choose_frames", "count_frames", "describe_source", "list_frames"]


def choose_frames(container: Container, start_s: float | None, end_s: float | None, every: int) -> range:
    """Every ``every``-th index in ``[start_s, end_s)``, seconds of container time, from its first on.

    Raises ``UsageError`` for impossible values and a stretch without a frame.
    """
    if every < 1:
        raise UsageError(f"every is {every}, allowed is 1 or more")
    for name, value in (("start", start_s), ("end", end_s)):
        if value is not None and not (math.isfinite(value) and value >= 0):
            raise UsageError(f"{name} is {value} s, allowed is 0 or more")
    # Times come from tick counts; 6 decimals are what is written, and what a user copies from there.
    times_s = [round(time_s, 6) for time_s in container.times_s]
    first = 0 if start_s is None else bisect_left(times_s, round(start_s, 6))
    after = len(times_s) if end_s is None else bisect_left(times_s, round(end_s, 6))
    if first >= after:
        raise UsageError(
            f"no frame lies from {0 if start_s is None else start_s:g} s to "
            f"{'the end' if end_s is None else f'{end_s:g} s'}",
            hint=f"the recording has frames from 0 to {times_s[-1]:g} s",
        )
    return range(first, after, every)


def list_frames(container: Container, wanted: range, *, labels: int) -> FrameTable:
    """A row for each container frame before any is read: ``unread``, ``skipped`` or ``missing``."""
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
    """The ledger of the records, which are all of the container's frames."""
    counts = np.bincount(columns(records).status, minlength=len(STATUSES)).tolist()
    return Ledger(
        container=container.frames,
        container_source=container.container_source,
        truncated=container.truncated,
        edited_out=container.edited_out,
        **dict(zip(STATUSES, counts, strict=True)),
    )


def describe_source(
    container: Container, sha256: str, capture_fps: float | None, field_of_view: FieldOfView | None
) -> Source:
    return Source(
        name=container.path.name,
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
    )
