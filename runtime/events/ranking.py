"""Which events to look at first, so that a finding of many events does not crowd out one of few."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from ..study import Event

__all__ = ["FIRST", "rank_events", "strength"]

# Events shown before the reader asks for the others: two rows of a wide screen, one page of print.
FIRST = 24


def rank_events(events: Sequence[Event], *, most: int | None = None) -> list[Event]:
    """The ``most`` events to look at first, or all, the most important before the others.

    The places are dealt out: each label's strongest event (highest peak, then most frames, then earliest)
    before any label's second, and so on. So each of n labels has a quota of ``most`` / n places, and what a
    label does not use goes to the others. Nothing is dropped but by ``most``, and the caller says how many.
    """
    by_label: defaultdict[str, list[Event]] = defaultdict(list)
    for event in sorted(events, key=strength):
        by_label[event.label].append(event)
    rounds = [(place, event) for mine in by_label.values() for place, event in enumerate(mine)]
    rounds.sort(key=lambda item: (item[0], strength(item[1])))
    return [event for _, event in rounds][:most]


def strength(event: Event) -> tuple[float, int, float, int]:
    """What the events of one label are sorted by, the strongest first."""
    return (-event.peak_p, -event.frames, event.start_s, event.id)
