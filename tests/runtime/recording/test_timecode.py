"""Times are written and read as people do, and rounded the same way everywhere."""

from __future__ import annotations

from array import array
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capsule_edge.runtime.errors import UsageError
from capsule_edge.runtime.recording.packets import list_times
from capsule_edge.runtime.recording.timecode import clock, parse_clock, time_kind

pytestmark = pytest.mark.quick


@pytest.mark.parametrize(
    ("seconds", "whole", "tenths"),
    [
        (0, "00:00:00", "00:00:00.0"),
        (2.2999999, "00:00:02", "00:00:02.3"),
        (59.99, "00:00:59", "00:00:59.9"),
        (60, "00:01:00", "00:01:00.0"),
        (3599.5, "00:59:59", "00:59:59.5"),
        (3600, "01:00:00", "01:00:00.0"),
        (28861.25, "08:01:01", "08:01:01.2"),
        (400_000, "111:06:40", "111:06:40.0"),
    ],
)
def test_a_time_is_cut_to_seconds_or_tenths(seconds: float, whole: str, tenths: str) -> None:
    assert (clock(seconds), clock(seconds, tenths=True)) == (whole, tenths)


@given(st.integers(0, 10**6))
def test_a_written_time_is_read_back(seconds: int) -> None:
    assert parse_clock(clock(seconds), name="time") == seconds


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("1.5", 1.5), ("1:30", 90), ("7:00:00", 25200), (" 59:59.5 ", 3599.5)]
)
def test_the_parts_of_a_time_may_be_left_out(text: str, seconds: float) -> None:
    assert parse_clock(text, name="time") == seconds


@pytest.mark.parametrize("text", ["", "-1", "1:60", "60:00", "1:60:00", "1:2:3:4", "1,5", "nan", "\u0663"])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"start is .*allowed is HH:MM:SS, MM:SS or seconds"):
        parse_clock(text, name="start")


@pytest.mark.parametrize(
    ("distance_s", "kind"), [(None, "playback"), (0.04, "playback"), (0.1, "capture"), (0.5, "capture")]
)
def test_a_file_of_ten_frames_a_second_or_fewer_keeps_capture_time(
    distance_s: float | None, kind: str
) -> None:
    assert time_kind(distance_s) == kind


@pytest.mark.parametrize("base", [Fraction(1, 90_000), Fraction(1001, 30_000), Fraction(1, (1 << 53) + 1)])
@pytest.mark.parametrize("first", [0, -7, 1 << 40])
@pytest.mark.parametrize("last", [3, 1 << 33, (1 << 53) + 1])
def test_times_are_the_nearest_floats(base: Fraction, first: int, last: int) -> None:
    times, median = list_times(array("q", [first, first + 1, first + last]), base)
    assert list(times) == [0.0, float(base), float(last * base)]
    assert median == 1
