"""The events of the report: a card with a picture for each, and the filters that choose among them."""

from __future__ import annotations

from dataclasses import dataclass

from ..events import rank_events
from ..inference import Label, OperatingPoint
from ..study import Event, Study
from .figures import jpeg, map_png
from .view import View

__all__ = ["CardFilter", "EventCard", "PeakPicture", "make_cards", "make_filters"]

# Pictures make a page heavy. The 8 MB of base64 left for them hold some 400 frames of a capsule; the events to look
# at first come first, and a card says so where its picture was left out.
_PICTURE_BUDGET = 8_000_000


@dataclass(frozen=True)
class PeakPicture:
    """A peak frame and its activation map as data URIs; ``overlay`` is empty without a map."""

    uri: str
    width: int
    height: int
    overlay: str


@dataclass(frozen=True)
class EventCard:
    """An event as its card shows it. ``later`` is an event that is not among those to look at first."""

    event: Event
    colour: str
    later: bool
    place: str
    of_transit: bool
    point: OperatingPoint | None
    picture: PeakPicture | None


@dataclass(frozen=True)
class CardFilter:
    """A button that shows the cards of one finding."""

    label: Label
    colour: str
    count: int


def make_cards(view: View) -> list[EventCard]:
    """Return the cards by time."""
    pictures = _pictures(view.study)
    points = view.study.model.operating_points
    return [
        EventCard(
            event,
            view.colour.get(event.label, "c0"),
            event.id not in view.first,
            *view.place(event),
            points.get(event.label),
            pictures.get(event.id),
        )
        for event in view.events
    ]


def make_filters(view: View) -> list[CardFilter]:
    """Return a filter for each finding that has a card."""
    return [
        CardFilter(label, view.colour[label.key], view.counts[label.key])
        for label in view.labels
        if view.counts[label.key]
    ]


def _pictures(study: Study) -> dict[int, PeakPicture]:
    """Return the peak frames by event, the most probable events first, up to the budget."""
    left = _PICTURE_BUDGET
    pictures = {}
    for event in rank_events(study.events):
        rgb = study.thumbnails.get(event.id)
        if rgb is None:
            continue
        uri, width, height = jpeg(rgb, longest=288, quality=84)
        activation = study.activations.get(event.id)
        overlay = "" if activation is None else map_png(activation)
        left -= len(uri) + len(overlay)
        if left < 0:
            break
        pictures[event.id] = PeakPicture(uri, width, height, overlay)
    return pictures
