"""The frames of an event's strip: 8 to 12 sound ones in order, its peak among them, none across a gap."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capsule_edge.runtime.events import StripChooser
from capsule_edge.runtime.study import STATUSES, Columns, Event

GOP = 12


def make_columns(statuses: list[str], times_s: np.ndarray | None = None) -> Columns:
    count = len(statuses)
    return Columns(
        np.arange(count, dtype=np.int64),
        np.arange(count) * 0.5 if times_s is None else times_s,
        np.zeros((count, 2), np.float32),
        np.ones(count, np.bool_),
        np.array([STATUSES.index(status) for status in statuses], np.int8),
        np.zeros(count, np.bool_),
    )


def make_event(first: int, last: int, peak: int) -> Event:
    return Event(
        1, "ulcer", "finding", first, last, first / 2, last / 2 + 0.5, peak, peak / 2, 0.9, last - first + 1
    )


def choose(columns: Columns, event: Event, gap_s: float = 5.0) -> list[int]:
    cost = np.arange(len(columns.indices), dtype=np.int64) % GOP + 1
    return StripChooser(columns, gap_s=gap_s, cost=cost).choose(event)


@pytest.mark.quick
def test_a_short_event_takes_frames_around_it() -> None:
    sound = make_columns(["classified"] * 60)
    assert choose(sound, make_event(30, 30, 30)) == [26, 27, 28, 29, 30, 31, 32, 33]
    assert choose(sound, make_event(30, 37, 31)) == list(range(28, 40))  # two on either side
    assert choose(sound, make_event(0, 1, 0)) == list(range(8))
    assert choose(sound, make_event(58, 59, 59)) == list(range(52, 60))


@pytest.mark.quick
def test_a_long_event_gives_a_frame_of_each_tenth_and_the_cheapest_to_decode() -> None:
    event = make_event(100, 571, 333)
    chosen = choose(make_columns(["classified"] * 700), event)
    assert len(chosen) == 10
    assert 333 in chosen
    # A tenth has 48 frames and four key frames.
    assert [index % GOP for index in chosen if index != 333] == [0] * 9
    assert np.diff(chosen).min() >= 12
    assert np.diff(chosen).max() <= 2 * 48


@pytest.mark.quick
def test_only_sound_frames_are_chosen_and_none_across_a_gap() -> None:
    statuses = ["classified"] * 60
    for index in (29, 31, 33):
        statuses[index] = "corrupt"
    statuses[35], statuses[36] = "skipped", "duplicate"
    assert choose(make_columns(statuses), make_event(30, 34, 30)) == [26, 27, 28, 30, 32, 34, 36, 37]
    times_s = np.arange(60) * 0.5
    times_s[30:] += 600
    times_s[33:] += 600
    gaps = make_columns(["classified"] * 60, times_s)
    assert choose(gaps, make_event(30, 32, 31)) == [30, 31, 32]  # nothing is near
    assert choose(gaps, make_event(28, 31, 31))[-1] == 32  # the event itself spans the gap
    nothing = make_columns(["corrupt"] * 60)
    assert choose(nothing, make_event(10, 20, 15)) == []


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_every_strip_has_the_peak_and_a_bounded_number_of_sound_frames_in_order(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 400))
    statuses = data.draw(
        st.lists(
            st.sampled_from([*["classified"] * 6, "duplicate", "corrupt", "unread"]),
            min_size=count,
            max_size=count,
        )
    )
    first = data.draw(st.integers(0, count - 1))
    last = data.draw(st.integers(first, count - 1))
    peak = data.draw(st.integers(first, last))
    statuses[peak] = "classified"
    chosen = choose(make_columns(statuses), make_event(first, last, peak))
    sound = [index for index, status in enumerate(statuses) if status in ("classified", "duplicate")]
    assert chosen == sorted(set(chosen))
    assert set(chosen) <= set(sound)
    assert peak in chosen
    assert len(chosen) <= 12
    near = [index for index in sound if first <= index <= last]
    for steps in (reversed(sound[: sound.index(near[0])]), iter(sound[sound.index(near[-1]) + 1 :])):
        for index in steps:
            if min(abs(index - other) for other in near) > 10:  # further than 5 s
                break
            near.append(index)
    assert len(chosen) >= min(8, len(near))
