"""Put events into the order in which to look at them."""

from __future__ import annotations

from collections.abc import Sequence

from ..study import Event, Suggestion

__all__ = ["FIRST", "rank_events", "strength"]

# Number of suggestions that are shown at first: two rows of a wide screen, one page of print.
FIRST = 24


def rank_events(events: Sequence[Event], suggestions: Sequence[Suggestion]) -> list[Event]:
    """Return the events in the order in which to look at them.

    The leading event of each suggestion comes first, in the order of the suggestions, and then the others, in the same
    order.

    Args:
        events: of one recording.
        suggestions: of the same recording; each event is in one of them.
    """
    by_id = {event.id: event for event in events}
    leads = [one.events[0] for one in suggestions]
    rest = [other for one in suggestions for other in one.events[1:]]
    return [by_id[event] for event in (*leads, *rest)]


def strength(event: Event) -> tuple[float, int, float, int]:
    """Return a sort key that puts the strongest event of a label first: highest peak, most frames, earliest."""
    return (-event.peak_p, -event.frames, event.start_s, event.id)
