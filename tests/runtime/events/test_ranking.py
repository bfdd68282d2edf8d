"""Which events come first: strong ones, and some of every finding."""

from __future__ import annotations

from capsule_edge.runtime.events import rank_events
from capsule_edge.runtime.study import Event


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


CROWD = [event(i, "angioectasia", 0.99) for i in range(1, 301)]


def test_one_finding_does_not_crowd_out_others() -> None:
    rare = [event(301, "polyp", 0.6), event(302, "blood", 0.7), event(303, "blood", 0.65)]
    first = rank_events([*CROWD, *rare], most=6)
    assert [e.label for e in first].count("angioectasia") == 3
    assert {e.id for e in rare} <= {e.id for e in first}
    # Strongest of each label, then the second of each.
    assert [e.id for e in first] == [1, 302, 301, 2, 303, 3]


def test_places_that_a_label_does_not_need_go_to_others() -> None:
    assert len(rank_events([*CROWD, event(301, "polyp", 0.6)], most=24)) == 24


def test_nothing_is_dropped_without_a_limit() -> None:
    assert sorted(e.id for e in rank_events(CROWD)) == list(range(1, 301))
    assert rank_events([]) == []


def test_of_equal_peaks_the_longer_and_then_the_earlier_comes_first() -> None:
    events = [event(1, "polyp", 0.9, 3), event(2, "polyp", 0.9, 9), event(3, "polyp", 0.9, 9)]
    assert [e.id for e in rank_events(events)] == [2, 3, 1]
