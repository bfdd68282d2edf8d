"""Summarise the frames of a study in equal bins, for the timeline of the page."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .result_files import FrameColumns

__all__ = ["preview_timeline", "summarise_frames"]

Colours = list[list[int] | None]


def summarise_frames(
    columns: FrameColumns, *, bins: int, duration_s: float | None, colours: Colours | None
) -> dict[str, Any]:
    """Return the timeline of a result.

    Args:
        columns: its frames.
        bins: number of bins, equal in frame index; fewer where there are fewer frames.
        duration_s: length of the recording in seconds.
        colours: RGB of bins of equal numbers of frames, None where none was decoded.
    """
    frames = len(columns)
    bins = max(1, min(bins, frames))
    edges = _edges(frames, bins)
    starts = edges[:-1]
    timeline: dict[str, Any] = {
        "frames": frames,
        "duration_s": duration_s,
        "bins": bins,
        "colours": _choose_colours(colours, edges, frames),
        "status": {},
        "unfamiliar": [0] * bins,
        "labels": {},
        "start_index": starts.tolist(),
        "start_time_s": _times_at(columns.times_s, starts),
    }
    if not frames:
        return timeline
    timeline["status"] = {
        name: np.add.reduceat((columns.status == code).astype(np.int64), starts).tolist()
        for code, name in enumerate(columns.statuses)
    }
    timeline["unfamiliar"] = np.add.reduceat(columns.unfamiliar.astype(np.int64), starts).tolist()
    values = np.nan_to_num(columns.probabilities, nan=0.0)
    highest = np.maximum.reduceat(values, starts, axis=0)
    timeline["labels"] = {
        key: [round(float(value), 4) for value in highest[:, column]]
        for column, key in enumerate(columns.keys)
    }
    return timeline


def preview_timeline(preview: dict[str, Any] | None, *, bins: int) -> dict[str, Any]:
    """Return the timeline of a recording that was not read yet: its length and colours, as far as they are known.

    Args:
        preview: ``frames``, ``duration_s`` and ``colours``; None where nothing is known.
        bins: number of bins.
    """
    known = preview or {}
    frames, colours = int(known.get("frames") or 0), known.get("colours")
    bins = max(1, min(bins, frames))
    edges = _edges(frames, bins)
    return {
        "frames": frames,
        "duration_s": known.get("duration_s"),
        "bins": bins,
        "colours": _choose_colours(colours, edges, frames),
        "status": {},
        "unfamiliar": [0] * bins,
        "labels": {},
        "start_index": edges[:-1].tolist(),
        "start_time_s": [None] * bins,
    }


def _edges(frames: int, bins: int) -> npt.NDArray[np.int64]:
    return (np.arange(bins + 1, dtype=np.int64) * frames) // bins


def _times_at(times_s: npt.NDArray[np.float64], starts: npt.NDArray[np.int64]) -> list[float | None]:
    """Return the times of the first frames of the bins, None for a frame without one."""
    if not len(times_s):
        return [None] * len(starts)
    return [None if np.isnan(time_s) else round(float(time_s), 6) for time_s in times_s[starts]]


def _choose_colours(colours: Colours | None, edges: npt.NDArray[np.int64], frames: int) -> Colours:
    """Return the colour of the frame in the middle of each bin, None where it is not known."""
    if not colours or not frames:
        return [None] * (len(edges) - 1)
    middles = (edges[:-1] + edges[1:]) // 2
    return [colours[place] for place in (middles * len(colours) // frames).tolist()]
