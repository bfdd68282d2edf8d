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
)
from ..inference import Label
from ..recording import clock
from ..study import Event, Study, columns
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
        events: the events that have a card, by id, at most ``CARDS``.
        counts: number of cards by label.
        total_s: length of the time axis, s of container time, above 0.
        tenths: whether times are shown with tenths of a second.
        gap_s: longest distance of two frames across which a probability curve is drawn, s of container time.
    """

    def __init__(self, study: Study) -> None:
        self.study = study
        self.labels: list[Label] = [label for label in study.model.labels if label.role == "finding"]
        self.names = {label.key: label.name for label in study.model.labels}
        self.colour = {label.key: f"c{i % COLOURS}" for i, label in enumerate(self.labels)}
        self.events = sorted(rank_events(study.events, most=CARDS), key=lambda event: event.id)
        self.counts = Counter(event.label for event in self.events)
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
        self.gap_s = study.model.events.max_gap_s / scale

    @cached_property
    def landmarks(self) -> Landmarks:
        return locate_events(self.study)

    @cached_property
    def positions(self) -> Mapping[int, Position]:
        return {position.event: position for position in self.landmarks.positions}

    @cached_property
    def rest(self) -> Sequence[Event]:
        """Events without a card."""
        shown = {event.id for event in self.events}
        return [event for event in self.study.events if event.id not in shown]

    @cached_property
    def first(self) -> frozenset[int]:
        """Ids of the events to look at first: all events where they are few."""
        return frozenset(event.id for event in rank_events(self.study.events, most=FIRST))

    def clock(self, seconds: float) -> str:
        """Return a time as ``hh:mm:ss``, with tenths for a file that plays faster than the capsule recorded."""
        return clock(seconds, tenths=self.tenths)

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
            f"highest probability {event.peak_p:.2f}",
        ]
        if where:
            words.insert(2, where + (OF_TRANSIT if of_transit else ""))
        return ", ".join(words)

    def share(self, seconds: float) -> float:
        """Return a time as a share of the axis, 0..1."""
        return min(max(seconds / self.total_s, 0.0), 1.0)
