"""The suggestions of the report: a card with a picture for each, and the filters that choose among them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..inference import Label
from ..study import Event, Suggestion
from .figures import jpeg, map_png
from .text import number, probability, worth
from .view import View

__all__ = ["CardFilter", "PeakPicture", "SuggestionCard", "make_cards", "make_filters"]

# Pictures make a page heavy. The 8 MB of base64 left for them hold some 400 frames of a capsule; the suggestions to
# look at first come first, and a card says so where its picture was left out.
_PICTURE_BUDGET = 8_000_000
# Number of similar places whose times a card gives.
_TIMES = 8


@dataclass(frozen=True)
class PeakPicture:
    """A peak frame and its activation map as data URIs; ``overlay`` is empty without a map."""

    uri: str
    width: int
    height: int
    overlay: str


@dataclass(frozen=True)
class SuggestionCard:
    """A suggestion as its card shows it.

    Attributes:
        suggestion: the suggestion.
        event: its leading event.
        colour: CSS class of the label.
        later: True if it is not among the suggestions to look at first.
        place: where the leading event lies; empty if not known.
        of_transit: True if ``place`` is a share of a transit time.
        alternatives: the other labels with their scores; empty without any.
        similar: number of similar places; empty without any.
        times: when its other events begin; empty without any.
        worth: measured precision of suggestions like this.
        measured_on: the recordings of that measurement; empty if there is none.
        picture: peak frame of the leading event; None if it was not kept.
    """

    suggestion: Suggestion
    event: Event
    colour: str
    later: bool
    place: str
    of_transit: bool
    alternatives: str
    similar: str
    times: str
    worth: str
    measured_on: str
    picture: PeakPicture | None


@dataclass(frozen=True)
class CardFilter:
    """A button that shows the cards of one finding."""

    label: Label
    colour: str
    count: int


def make_cards(view: View) -> list[SuggestionCard]:
    """Return the cards in the order in which to look at them."""
    pictures = _pictures(view)
    return [_card(view, suggestion, pictures) for suggestion in view.cards]


def _card(view: View, suggestion: Suggestion, pictures: Mapping[int, PeakPicture]) -> SuggestionCard:
    event = view.leading(suggestion)
    others = [
        f"{view.names.get(other.label, other.label)} ({probability(other.score)})"
        for other in suggestion.alternatives
    ]
    return SuggestionCard(
        suggestion,
        event,
        view.colour.get(event.label, "c0"),
        suggestion.id not in view.first,
        *view.place(event),
        alternatives=", ".join(others),
        similar=number(suggestion.similar, "similar place") if suggestion.similar else "",
        times=_times(view, suggestion),
        worth=worth(suggestion),
        measured_on=suggestion.precision.measured_on if suggestion.precision else "",
        picture=pictures.get(event.id),
    )


def _times(view: View, suggestion: Suggestion) -> str:
    """Return when the other events of a suggestion begin, at most ``_TIMES`` of them."""
    others = view.others(suggestion)
    parts = [
        view.clock(event.start_s) + ("" if event.label == suggestion.label else f" ({view.name(event)})")
        for event in others[:_TIMES]
    ]
    if len(others) > _TIMES:
        parts.append(f"and {number(len(others) - _TIMES)} more")
    return ", ".join(parts)


def make_filters(view: View) -> list[CardFilter]:
    """Return a filter for each finding that has a card."""
    return [
        CardFilter(label, view.colour[label.key], view.counts[label.key])
        for label in view.labels
        if view.counts[label.key]
    ]


def _pictures(view: View) -> dict[int, PeakPicture]:
    """Return the peak frames of the leading events by event id, in the order of the cards, up to the budget."""
    left = _PICTURE_BUDGET
    pictures = {}
    study = view.study
    for event in map(view.leading, view.cards):
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
