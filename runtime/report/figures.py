"""Draw the figures of the report as data URIs and SVG that need no script, no network and no inline style.

Horizontal positions are shares of the recording's length, so one drawing fits a phone, a workstation and paper.
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
    "jpeg_uri",
    "map_png",
    "set_aside_stretches",
    "unread_stretches",
]

# A workstation's screen is 2,000 pixels wide and shows no more points than that.
CURVE_POINTS = 2000
_BREAKS = 500  # the widest gaps interrupt a curve, at most this many: each adds points
_STRETCHES = 1000


def base64_text(values: npt.NDArray[Any]) -> str:
    """Return the bytes of an array in base64, for the script of the page."""
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode("ascii")


def jpeg(rgb: npt.NDArray[np.uint8], *, longest: int, quality: int) -> tuple[str, int, int]:
    """Encode a picture as a JPEG data URI.

    Args:
        rgb: uint8 RGB (height, width, 3).
        longest: longest side in pixels; a larger picture is shrunk to it.
        quality: JPEG quality, 0..100.

    Returns:
        The data URI, and the width and height of the JPEG in pixels.
    """
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


def jpeg_uri(data: bytes) -> str:
    """Return a JPEG file as a data URI."""
    return _uri("jpeg", np.frombuffer(data, np.uint8))


def map_png(activation: npt.NDArray[np.float32]) -> str:
    """Encode a float map in 0..1 as a grayscale PNG data URI; NaN counts as 0. The page colours it."""
    gray = np.round(np.clip(np.nan_to_num(activation), 0, 1) * 255).astype(np.uint8)
    return _uri("png", cv2.imencode(".png", gray)[1])


def colour_bar(colours: npt.NDArray[Any]) -> str:
    """Encode mean colours, RGB 0..255 (bins, 3), as a PNG data URI one pixel high; bins with NaN are transparent."""
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
    """Draw each column of probabilities as an SVG path in a box of 2,000 x 100.

    A path has at most ``CURVE_POINTS`` points, and more at gaps. Each point is the highest probability of a stretch of
    frames, so no peak is lost. The line is interrupted at gaps, at the 500 widest at most.

    Args:
        times_s: times of the frames, s, ascending (frames,).
        probabilities: 0..1 (frames, columns); NaN counts as 0.
        total_s: width of the box, s.
        max_gap_s: two frames further apart than this are a gap, s of container time.
    """
    count = len(times_s)
    if not count:
        return [""] * probabilities.shape[1]
    steps = np.diff(times_s)
    wide = np.flatnonzero(steps > max_gap_s)
    wide = np.sort(wide[np.argsort(-steps[wide], kind="stable")[:_BREAKS]]) + 1
    # No stretch of frames crosses a gap.
    first = np.union1d(np.arange(0, count, -(-count // CURVE_POINTS)), wide)
    highest = np.maximum.reduceat(np.nan_to_num(probabilities), first, axis=0)
    begins = np.searchsorted(first, np.concatenate(([0], wide)))
    x = [f"{value:.1f}" for value in (2000 * times_s[first] / total_s).tolist()]
    # Close each piece at its last frame, so that it does not reach into the gap.
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
    """Return the stretches of the recording that have corrupt frames, or no classified frame.

    The recording is divided into 1,000 bins. One corrupt frame marks its bin. ``skipped`` and ``unread`` frames mark a
    bin only if no frame in it was classified, so that reading every tenth frame does not mark everything.

    Returns:
        (status, begin, end) for each stretch, in order; begin and end are shares of the length, 0..1.
    """
    marks = np.zeros(_STRETCHES, np.uint8)
    worth = {"skipped": 1, "unread": 2, "classified": 3, "duplicate": 3, "corrupt": 4}
    every = columns(frames)
    if every.timed.any():
        times = every.times_s[every.timed]
        ranks = np.array([worth.get(status, 0) for status in STATUSES])[every.status[every.timed]]
        bins = np.minimum((times / total_s * _STRETCHES).astype(np.intp), _STRETCHES - 1)
        np.maximum.at(marks, bins, ranks.astype(np.uint8))
        # A bin without a frame, between two frames, takes the mark of the bin before it.
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


def set_aside_stretches(frames: Sequence[FrameRecord], *, total_s: float) -> list[tuple[float, float]]:
    """Return the stretches of the recording with frames that were set aside: begin and end as shares of its length.

    The recording is divided into 1,000 bins. One frame that was set aside marks its bin, and the bins after it that
    hold no frame.
    """
    every = columns(frames)
    marks = np.zeros(_STRETCHES, np.uint8)
    shown = every.timed
    if not (shown & every.set_aside).any():
        return []
    bins = np.minimum((every.times_s[shown] / total_s * _STRETCHES).astype(np.intp), _STRETCHES - 1)
    np.maximum.at(marks, bins, 1 + every.set_aside[shown].astype(np.uint8))
    filled = np.maximum.accumulate(np.where(marks > 0, np.arange(_STRETCHES), 0))
    marked = marks[filled] == 2
    marked[int(bins.max()) + 1 :] = False
    edges = (np.flatnonzero(np.diff(marked, prepend=False, append=False)) / _STRETCHES).tolist()
    return list(zip(edges[::2], edges[1::2], strict=True))


def axis_ticks(total_s: float) -> list[float]:
    """Return round times from 0 for the axis, in s: steps of at most an eighth, none whose text the end would cut."""
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
