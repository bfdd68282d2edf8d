"""A study as the page shows it: names and colours of findings, the time axis, and where events lie."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np

from ..events import (
    FIRST,
    Landmarks,
    Position,
    capture_scale,
    locate_events,
    median_frame_distance,
    rank_events,
    suggest,
)
from ..inference import Label
from ..recording import clock
from ..study import Event, Study, Suggestion, columns
from .transit import place

__all__ = ["CARDS", "COLOURS", "OF_TRANSIT", "View"]

# A card and its place on the timeline take 2 kB without their picture, and nobody looks at more pictures than this.
CARDS = 1000
COLOURS = 12  # classes c0 to c11 of page.css
OF_TRANSIT = " of its transit time"


class View:
    """The data that all sections of the page share.

    Attributes:
        labels: the findings that the model knows, in its order.
        names: name of every label by key.
        colour: CSS class of every finding by key.
        suggestions: all suggestions, in the order in which to look at them.
        cards: the suggestions that have a card, at most ``CARDS``.
        ranked: the same events as ``events``, in the order in which to look at them.
        events: the events that the timeline shows one by one, by id: those of the cards, the leading ones first, at
            most ``CARDS``.
        counts: number of cards by label.
        total_s: length of the time axis, s of container time, above 0.
        tenths: whether times are shown with tenths of a second.
        exam_scale: seconds of the examination in one second of container time; None if it is not known how fast the
            capsule recorded.
        gap_s: longest distance of two frames across which a probability curve is drawn, s of container time.
    """

    def __init__(self, study: Study) -> None:
        self.study = study
        self.labels: list[Label] = [label for label in study.model.labels if label.role == "finding"]
        self.names = {label.key: label.name for label in study.model.labels}
        self.colour = {label.key: f"c{i % COLOURS}" for i, label in enumerate(self.labels)}
        distance_s = median_frame_distance(study.frames)
        last = float(np.nanmax(columns(study.frames).times_s, initial=0.0))
        self.total_s = max(study.source.duration_s or 0.0, last + (distance_s or 0.0)) or 1.0
        # Files that play at 30 frames a second pass several frames, and whole events, within one second.
        self.tenths = study.source.time_kind == "playback"
        scale = capture_scale(
            study.model.events,
            median_distance_s=distance_s,
            time_kind=study.source.time_kind,
            capture_fps=study.source.capture_fps,
        )
        known = study.source.time_kind == "capture" or study.source.capture_fps is not None
        self.exam_scale = scale if known else None
        self.gap_s = study.model.events.max_gap_s / scale
        self._by_id = {event.id: event for event in study.events}
        self.suggestions: Sequence[Suggestion] = (
            suggest(study.events, study.frames, study.model, scale=scale)
            if study.suggestions is None
            else study.suggestions
        )
        self.cards = self.suggestions[:CARDS]
        self.ranked = self._order()[:CARDS]
        self.events = list(self.ranked)
        self.events.sort(key=lambda event: event.id)
        self.counts = Counter(suggestion.label for suggestion in self.cards)
        self._shown = {event.id for event in self.events}
        self._leading = {suggestion.events[0] for suggestion in self.cards}
        self._card_of = {event: one.id for one in self.cards for event in one.events}

    def _order(self) -> list[Event]:
        """Return the events of the cards, the leading ones first."""
        shown = {event for one in self.cards for event in one.events}
        return rank_events([self._by_id[event] for event in sorted(shown)], self.cards)

    @cached_property
    def landmarks(self) -> Landmarks:
        return locate_events(self.study)

    @cached_property
    def positions(self) -> Mapping[int, Position]:
        return {position.event: position for position in self.landmarks.positions}

    @cached_property
    def rest(self) -> Sequence[Event]:
        """Events that the timeline does not show one by one."""
        return [event for event in self.study.events if event.id not in self._shown]

    @cached_property
    def first(self) -> frozenset[int]:
        """Ids of the suggestions to look at first: all suggestions where they are few."""
        return frozenset(one.id for one in self.suggestions[:FIRST])

    def leading(self, suggestion: Suggestion) -> Event:
        """Return the event that leads a suggestion."""
        return self._by_id[suggestion.events[0]]

    def others(self, suggestion: Suggestion) -> list[Event]:
        """Return the other events of a suggestion by id."""
        return [self._by_id[event] for event in suggestion.events[1:]]

    def shows(self, event: Event) -> bool:
        """Return whether the timeline shows the event one by one, and its card too."""
        return event.id in self._shown

    def leads(self, event: Event) -> bool:
        """Return whether the event leads a suggestion that has a card."""
        return event.id in self._leading

    def card_of(self, event: Event) -> int:
        """Return the id of the suggestion whose card shows an event of ``events``."""
        return self._card_of[event.id]

    def clock(self, seconds: float) -> str:
        """Return a time as ``hh:mm:ss``, with tenths for a file that plays faster than the capsule recorded."""
        return clock(seconds, tenths=self.tenths)

    def clocks(self, seconds: float) -> tuple[str, str]:
        """Return a time of the file by the exam clock, "unknown" without a capture rate, and by the playback clock."""
        if self.exam_scale is None:
            return "unknown", self.clock(seconds)
        return clock(seconds * self.exam_scale), self.clock(seconds)

    def name(self, event: Event) -> str:
        """Return the name of the event's finding."""
        return self.names.get(event.label, event.label)

    def place(self, event: Event) -> tuple[str, bool]:
        """Return where the event lies, as ``transit.place`` does."""
        return place(self.positions.get(event.id))

    def describe(self, event: Event) -> str:
        """Return one line about the event, for readers who hear the page."""
        where, of_transit = self.place(event)
        words = [
            f"Event {event.id}: {self.name(event)}",
            f"{self.clock(event.start_s)} to {self.clock(event.end_s)}",
            f"suggestion {self.card_of(event)}",
        ]
        if where:
            words.insert(2, where + (OF_TRANSIT if of_transit else ""))
        return ", ".join(words)

    def describe_card(self, suggestion: Suggestion) -> str:
        """Return one line about the suggestion, for readers who hear the page."""
        event = self.leading(suggestion)
        words = [
            f"Suggestion {suggestion.id}: {self.name(event)}",
            f"{self.clock(event.start_s)} to {self.clock(event.end_s)}",
            f"score {suggestion.score:.2f}",
        ]
        where, of_transit = self.place(event)
        if where:
            words.insert(2, where + (OF_TRANSIT if of_transit else ""))
        return ", ".join(words)

    def share(self, seconds: float) -> float:
        """Return a time as a share of the axis, 0..1."""
        return min(max(seconds / self.total_s, 0.0), 1.0)
