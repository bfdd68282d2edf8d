"""Pictures of the report: data URIs and SVG that need no script, no network and no inline style.

Horizontal positions are shares of the recording's length, written as percentages, so one drawing fits a
phone, a workstation and paper.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ..study import STATUSES, FrameRecord, columns

__all__ = [
    "axis_ticks",
    "base64_text",
    "colour_bar",
    "curve_paths",
    "jpeg",
    "map_png",
    "unread_stretches",
]

# A workstation is 2,000 pixels wide: more points than that cannot be seen.
CURVE_POINTS = 2000
_BREAKS = 500  # gaps that interrupt a curve, the widest first: each adds points of its own
_STRETCHES = 1000


def base64_text(values: npt.NDArray[Any]) -> str:
    """The bytes of an array, for the script of the page."""
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode("ascii")


def jpeg(rgb: npt.NDArray[np.uint8], *, longest: int, quality: int) -> tuple[str, int, int]:
    """JPEG data URI of uint8 RGB HxWx3, shrunk to ``longest`` pixels, and its width and height."""
    height, width = rgb.shape[:2]
    shrink = longest / max(height, width)
    if shrink < 1:
        width, height = max(1, round(width * shrink)), max(1, round(height * shrink))
        rgb = np.asarray(cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
    done, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise ValueError(f"a thumbnail of shape {rgb.shape} cannot be encoded")
    return _uri("jpeg", data), width, height


def map_png(activation: npt.NDArray[np.float32]) -> str:
    """Grayscale PNG data URI of a float map in 0..1; the page gives it its colours. NaN counts as 0."""
    gray = np.round(np.clip(np.nan_to_num(activation), 0, 1) * 255).astype(np.uint8)
    return _uri("png", cv2.imencode(".png", gray)[1])


def colour_bar(colours: npt.NDArray[Any]) -> str:
    """PNG data URI, one pixel high, of mean colours RGB 0..255 (bins, 3); bins with NaN are transparent."""
    values = np.asarray(colours, np.float64)
    if values.ndim != 2 or values.shape[1] != 3 or not len(values):
        raise ValueError(f"colours have shape {values.shape}, needed is (bins, 3)")
    known = np.flatnonzero(np.isfinite(values).all(axis=1))
    bgra = np.zeros((1, len(values), 4), np.uint8)
    bgra[0, known, :3] = np.clip(np.round(values[known]), 0, 255)[:, ::-1]
    bgra[0, known, 3] = 255
    return _uri("png", cv2.imencode(".png", bgra)[1])


def curve_paths(
    times_s: npt.NDArray[np.float64],
    probabilities: npt.NDArray[np.float32],
    *,
    total_s: float,
    max_gap_s: float,
) -> list[str]:
    """SVG path of each column over a 2,000 x 100 box, of at most ``CURVE_POINTS`` points beside those at gaps.

    Each point is the highest probability of its stretch of frames, so that no peak is lost; the line is
    interrupted where frames are further apart than ``max_gap_s`` (seconds of container time), at no more than
    500 places.
    """
    count = len(times_s)
    if not count:
        return [""] * probabilities.shape[1]
    steps = np.diff(times_s)
    wide = np.flatnonzero(steps > max_gap_s)
    wide = np.sort(wide[np.argsort(-steps[wide], kind="stable")[:_BREAKS]]) + 1
    # A stretch of frames never reaches across a gap.
    first = np.union1d(np.arange(0, count, -(-count // CURVE_POINTS)), wide)
    highest = np.maximum.reduceat(np.nan_to_num(probabilities), first, axis=0)
    begins = np.searchsorted(first, np.concatenate(([0], wide)))
    x = [f"{value:.1f}" for value in (2000 * times_s[first] / total_s).tolist()]
    # A stretch that ends in a gap keeps its own width: close each piece where its last frame lies.
    ends = np.append(begins[1:], len(first)) - 1
    last = [
        f"{value:.1f}" for value in (2000 * times_s[np.append(first[1:], count)[ends] - 1] / total_s).tolist()
    ]
    paths = []
    for column in range(probabilities.shape[1]):
        y = [f"{value:.1f}" for value in (100 - 100 * highest[:, column]).tolist()]
        pieces = []
        for begin, end, close in zip(begins.tolist(), ends.tolist(), last, strict=True):
            points = " ".join(f"{x[i]},{y[i]}" for i in range(begin, end + 1))
            pieces.append(f"M{x[begin]},100L{points} {close},{y[end]} {close},100")
        paths.append("".join(pieces))
    return paths


def unread_stretches(frames: Sequence[FrameRecord], *, total_s: float) -> list[tuple[str, float, float]]:
    """Stretches (status, from, to; shares of the length) with corrupt frames, or with no answered frame.

    One corrupt frame marks its thousandth of the recording; ``skipped`` and ``unread`` mark one only where no
    frame was classified, so that reading every tenth frame does not colour everything.
    """
    marks = np.zeros(_STRETCHES, np.uint8)
    worth = {"skipped": 1, "unread": 2, "classified": 3, "duplicate": 3, "corrupt": 4}
    every = columns(frames)
    if every.timed.any():
        times = every.times_s[every.timed]
        ranks = np.array([worth.get(status, 0) for status in STATUSES])[every.status[every.timed]]
        bins = np.minimum((times / total_s * _STRETCHES).astype(np.intp), _STRETCHES - 1)
        np.maximum.at(marks, bins, ranks.astype(np.uint8))
        # A bin between two frames that holds none is part of what precedes it.
        filled = np.maximum.accumulate(np.where(marks > 0, np.arange(_STRETCHES), 0))
        reach = int(bins.max()) + 1
        marks[:reach] = marks[filled[:reach]]
    names = {1: "skipped", 2: "unread", 4: "corrupt"}
    edges = np.flatnonzero(np.diff(marks, prepend=255, append=255))
    return [
        (names[int(marks[begin])], begin / _STRETCHES, end / _STRETCHES)
        for begin, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)
        if int(marks[begin]) in names
    ]


def axis_ticks(total_s: float) -> list[float]:
    """Round times from 0, at most eight and none so near the end that its text is cut."""
    steps = (
        0.1,
        0.2,
        0.5,
        1,
        2,
        5,
        10,
        15,
        30,
        60,
        120,
        300,
        600,
        900,
        1800,
        3600,
        7200,
        14400,
        43200,
        86400,
    )
    step = next((step for step in steps if total_s / step <= 8), total_s / 8)
    return [step * i for i in range(9) if step * i <= 0.92 * total_s]


def _uri(kind: str, data: npt.NDArray[Any]) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data.tobytes()).decode('ascii')}"
