"""The order of events: the leading ones in the order of the suggestions, and then the others."""

from __future__ import annotations

import pytest

from capsule_edge.runtime.events import rank_events
from capsule_edge.runtime.study import Event, Suggestion

pytestmark = pytest.mark.quick


def event(number: int) -> Event:
    return Event(number, "polyp", "finding", number, number, float(number), number + 0.5, number, 0.0, 0.9, 1)


def test_leading_events_come_first_and_no_event_is_dropped() -> None:
    suggestions = [Suggestion(1, "polyp", (3, 1, 5), 0.9), Suggestion(2, "polyp", (4, 2), 0.5)]
    ranked = rank_events([event(number) for number in range(1, 6)], suggestions)
    assert [e.id for e in ranked] == [3, 4, 1, 5, 2]


def test_without_events_the_order_is_empty() -> None:
    assert rank_events([], []) == []
