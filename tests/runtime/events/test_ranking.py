"""The order of events: by strength, and with some of every label in front."""

from __future__ import annotations

import pytest

from capsule_edge.runtime.events import rank_events
from capsule_edge.runtime.study import Event

pytestmark = pytest.mark.quick


def event(number: int, label: str, peak_p: float, frames: int = 5) -> Event:
    return Event(
        number,
        label,
        "finding",
        number,
        number + frames,
        float(number),
        number + 2.5,
        number,
        0.0,
        peak_p,
        frames,
    )


MANY = [event(i, "angioectasia", 0.99) for i in range(1, 301)]


def test_a_frequent_label_leaves_room_for_rare_ones() -> None:
    rare = [event(301, "polyp", 0.6), event(302, "blood", 0.7), event(303, "blood", 0.65)]
    first = rank_events([*MANY, *rare], most=6)
    assert [e.label for e in first].count("angioectasia") == 3
    assert {e.id for e in rare} <= {e.id for e in first}
    # The strongest of each label, then the second of each.
    assert [e.id for e in first] == [1, 302, 301, 2, 303, 3]


def test_places_that_a_rare_label_does_not_need_go_to_others() -> None:
    assert len(rank_events([*MANY, event(301, "polyp", 0.6)], most=24)) == 24


def test_without_a_limit_no_event_is_dropped() -> None:
    assert sorted(e.id for e in rank_events(MANY)) == list(range(1, 301))
    assert rank_events([]) == []


def test_equal_peaks_are_ordered_by_length_then_start() -> None:
    events = [event(1, "polyp", 0.9, 3), event(2, "polyp", 0.9, 9), event(3, "polyp", 0.9, 9)]
    assert [e.id for e in rank_events(events)] == [2, 3, 1]
