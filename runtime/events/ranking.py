"""Rank events, so that a label with many events does not crowd out a label with few."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from ..study import Event

__all__ = ["FIRST", "rank_events", "strength"]

# Number of events that are shown at first: two rows of a wide screen, one page of print.
FIRST = 24


def rank_events(events: Sequence[Event], *, most: int | None = None) -> list[Event]:
    """Return the events in the order in which to look at them.

    Each label's strongest event comes first (highest peak, then most frames, then earliest), then each label's second,
    and so on. So each of n labels has ``most`` / n places, and the places that a label does not use go to the others.

    Args:
        events: of one recording.
        most: return only this many; None returns all.
    """
    by_label: defaultdict[str, list[Event]] = defaultdict(list)
    for event in sorted(events, key=strength):
        by_label[event.label].append(event)
    rounds = [(place, event) for mine in by_label.values() for place, event in enumerate(mine)]
    rounds.sort(key=lambda item: (item[0], strength(item[1])))
    return [event for _, event in rounds][:most]


def strength(event: Event) -> tuple[float, int, float, int]:
    """Return a sort key that puts the strongest event of a label first."""
    return (-event.peak_p, -event.frames, event.start_s, event.id)
