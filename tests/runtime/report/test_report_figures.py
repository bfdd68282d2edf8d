"""The figures of a report: clocks, curves, stretches, colours, ticks."""

from __future__ import annotations

import base64
import re

import cv2
import numpy as np
import pytest

from capsule_edge.runtime.recording import clock
from capsule_edge.runtime.report import jpeg
from capsule_edge.runtime.report.figures import (
    CURVE_POINTS,
    axis_ticks,
    colour_bar,
    curve_paths,
    map_png,
    unread_stretches,
)
from capsule_edge.runtime.study import FrameRecord


def test_clock_cuts_and_does_not_round_up() -> None:
    assert clock(3661.99) == "01:01:01"
    assert clock(59.99, tenths=True) == "00:00:59.9"
    assert clock(2.3, tenths=True) == "00:00:02.3"  # 2.3 is 2.29999... in binary
    assert clock(100 * 3600) == "100:00:00"


def test_the_curve_keeps_every_peak_and_breaks_at_gaps() -> None:
    times = np.arange(57_600) * 0.5
    times[30_000:] += 600
    values = np.zeros((57_600, 1), np.float32)
    values[12_345] = 1.0
    (path,) = curve_paths(times, values, total_s=float(times[-1]), max_gap_s=5.0)
    assert path.count("M") == 2
    assert re.search(r",0\.0[ L]", path)
    assert curve_paths(times[:0], values[:0], total_s=1.0, max_gap_s=5.0) == [""]


def test_a_curve_does_not_reach_across_a_gap_inside_a_point() -> None:
    # 4,001 frames are drawn three to a point, and the gap lies between the second and third of one.
    times = np.arange(4001) * 0.5
    times[2000:] += 1000
    (path,) = curve_paths(times, np.ones((4001, 1), np.float32), total_s=float(times[-1]), max_gap_s=5.0)
    first, second = path[1:].split("M")
    scale = 2000 / times[-1]
    assert float(first.split(" ")[-1].split(",")[0]) == pytest.approx(
        times[1999] * scale, abs=0.05
    )  # one decimal
    assert float(second.split(",")[0]) == pytest.approx(times[2000] * scale, abs=0.05)
    many = np.cumsum(np.where(np.arange(57_600) % 2, 0.5, 6.0))
    (path,) = curve_paths(many, np.ones((57_600, 1), np.float32), total_s=float(many[-1]), max_gap_s=5.0)
    assert path.count("M") == 501  # the widest 500 gaps
    assert path.count(",") < 2 * CURVE_POINTS


def test_unread_stretches() -> None:
    probabilities = np.zeros(2, np.float32)
    frames = [FrameRecord(i, "classified", i, float(i), probabilities=probabilities) for i in range(1000)]
    assert unread_stretches(frames, total_s=1000.0) == []
    frames[500] = FrameRecord(500, "corrupt", 500, 500.0)
    frames[900:] = [FrameRecord(i, "unread", i, float(i)) for i in range(900, 1000)]
    assert unread_stretches(frames, total_s=1000.0) == [("corrupt", 0.5, 0.501), ("unread", 0.9, 1.0)]
    every_tenth = [
        FrameRecord(i, "classified", i, i / 30, probabilities=probabilities)
        if i % 10 == 0
        else FrameRecord(i, "skipped", i, i / 30)
        for i in range(30_000)
    ]
    assert unread_stretches(every_tenth, total_s=1000.0) == []


def test_colour_bar_leaves_unknown_stretches_transparent() -> None:
    colours = np.array([[200.0, 100.0, 50.0], [np.nan] * 3, [0.0, 300.0, -5.0]])
    data = base64.b64decode(colour_bar(colours).split(",")[1])
    bar = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert bar.tolist() == [[[50, 100, 200, 255], [0, 0, 0, 0], [0, 255, 0, 255]]]
    with pytest.raises(ValueError, match="needed is"):
        colour_bar(np.zeros((3, 4)))


def test_jpeg_keeps_colours_and_shrinks() -> None:
    red = np.zeros((400, 800, 3), np.uint8)
    red[..., 0] = 200
    uri, width, height = jpeg(red, longest=288, quality=84)
    assert (width, height) == (288, 144)
    decoded = cv2.imdecode(np.frombuffer(base64.b64decode(uri.split(",")[1]), np.uint8), cv2.IMREAD_COLOR)
    assert np.abs(decoded[70, 140].astype(int) - [0, 0, 200]).max() <= 4  # 8-bit YCbCr and back


def test_map_without_numbers_is_empty() -> None:
    data = base64.b64decode(map_png(np.full((3, 4), np.nan, np.float32)).split(",")[1])
    assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED).max() == 0


@pytest.mark.parametrize("total_s", [0.05, 1.0, 9.0, 133.0, 28_800.0, 90_000.0, 10_000_000.0])
def test_axis_ticks_are_few_and_inside(total_s: float) -> None:
    ticks = axis_ticks(total_s)
    assert ticks[0] == 0
    assert 1 <= len(ticks) <= 9
    assert ticks[-1] < total_s
