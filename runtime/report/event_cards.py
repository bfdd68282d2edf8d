"""The suggestions of the report: a card for each, with its events and their pictures, and filters among the cards."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..inference import Label
from ..study import Event, Suggestion
from .figures import jpeg, jpeg_uri, map_png
from .text import number, probability, worth
from .view import View

__all__ = ["CardFilter", "EventPart", "PeakPicture", "Shot", "SuggestionCard", "make_cards", "make_filters"]

# Size of the page in bytes up to which events get strips, and up to which they get one picture. The most promising
# events come first, and a card says so where a picture was left out.
_STRIPS_UNTIL = 12_000_000
_PICTURES_UNTIL = 14_500_000
# What a small picture takes beside its data: its number, its clocks and the elements around them.
_SHOT_TEXT = 420
_SMALL = 128
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
class Shot:
    """A small picture of a strip.

    Attributes:
        uri: the picture as a data URI.
        width: width in pixels.
        height: height in pixels.
        index: of the frame.
        exam: time of the frame by the exam clock, or "unknown".
        playback: time of the frame by the playback clock.
        at: place of the frame as a share of the time axis, 0..1.
        peak: True for the peak frame of the event.
    """

    uri: str
    width: int
    height: int
    index: int
    exam: str
    playback: str
    at: float
    peak: bool


@dataclass(frozen=True)
class EventPart:
    """An event inside a card; ``picture`` is its peak frame, None if there was no room; ``exam`` is its peak's time."""

    event: Event
    colour: str
    exam: str
    picture: PeakPicture | None
    strip: list[Shot]


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
        parts: its events with their pictures, the leading event first.
        unshown: number of its further events, for which the page has no room.
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
    parts: list[EventPart]
    unshown: int

    @property
    def picture(self) -> PeakPicture | None:
        """Peak frame of the leading event; None if it was not kept."""
        return self.parts[0].picture


@dataclass(frozen=True)
class CardFilter:
    """A button that shows the cards of one finding."""

    label: Label
    colour: str
    count: int


@dataclass
class _Album:
    """The pictures of events by event id, while they are collected; ``size`` is that of the page with them, bytes."""

    size: int
    pictures: dict[int, PeakPicture] = field(default_factory=dict)
    strips: dict[int, list[Shot]] = field(default_factory=dict)

    def add(self, event: int, picture: PeakPicture | None, strip: list[Shot], *, until: int) -> bool:
        """Take the pictures of an event unless they would make the page larger than ``until`` bytes."""
        new = sum(len(shot.uri) + _SHOT_TEXT for shot in strip)
        if picture is not None:
            new += len(picture.uri) + len(picture.overlay)
        if self.size + new > until:
            return False
        self.size += new
        if picture is not None:
            self.pictures[event] = picture
        self.strips[event] = strip
        return True


def make_cards(view: View, size: int | None) -> list[SuggestionCard]:
    """Return the cards in the order in which to look at them.

    Args:
        view: the study.
        size: of the page without pictures, bytes; None to leave the pictures out.
    """
    album = _Album(0) if size is None else _collect(view, size)
    return [_card(view, suggestion, album) for suggestion in view.cards]


def _card(view: View, suggestion: Suggestion, album: _Album) -> SuggestionCard:
    event = view.leading(suggestion)
    others = [
        f"{view.names.get(other.label, other.label)} ({probability(other.score)})"
        for other in suggestion.alternatives
    ]
    shown = [one for one in (event, *view.others(suggestion)) if one is event or view.shows(one)]
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
        parts=[_part(view, one, album) for one in shown],
        unshown=len(suggestion.events) - len(shown),
    )


def _part(view: View, event: Event, album: _Album) -> EventPart:
    return EventPart(
        event,
        view.colour.get(event.label, "c0"),
        view.clocks(event.peak_s)[0],
        album.pictures.get(event.id),
        album.strips.get(event.id, []),
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


def _collect(view: View, size: int) -> _Album:
    """Return the pictures of the events that a page of ``size`` bytes has room for, the best events first.

    Events get a strip and their peak frame until the page reaches ``_STRIPS_UNTIL``. From then on an event gets one
    picture, until the page reaches ``_PICTURES_UNTIL``.
    """
    album, strips_fit = _Album(size), True
    for event in view.ranked:
        peak = _peak_picture(view, event)
        strip = _strip(view, event) if strips_fit else []
        if strip:
            strips_fit = album.add(event.id, peak, strip, until=_STRIPS_UNTIL)
            if strips_fit:
                continue
        if peak is not None:
            small = [] if view.leads(event) else _single(view, event)
            if not album.add(event.id, None if small else peak, small, until=_PICTURES_UNTIL):
                break
    return album


def _peak_picture(view: View, event: Event) -> PeakPicture | None:
    """Return the peak frame of an event; None if it was not kept."""
    rgb = view.study.thumbnails.get(event.id)
    if rgb is None:
        return None
    activation = view.study.activations.get(event.id)
    overlay = "" if activation is None else map_png(activation)
    return PeakPicture(*jpeg(rgb, longest=288, quality=84), overlay)


def _strip(view: View, event: Event) -> list[Shot]:
    """Return the small pictures of an event; empty if none were made."""
    shots = []
    for picture in view.study.strips.get(event.id, ()):
        seconds = view.study.frames[picture.index].time_s
        assert seconds is not None  # a frame that was decoded has a time
        shots.append(
            Shot(
                jpeg_uri(picture.jpeg),
                picture.side,
                picture.side,
                picture.index,
                *view.clocks(seconds),
                at=view.share(seconds),
                peak=picture.index == event.peak_index,
            )
        )
    return shots


def _single(view: View, event: Event) -> list[Shot]:
    """Return the peak frame of an event as the only picture of its strip."""
    uri, width, height = jpeg(view.study.thumbnails[event.id], longest=_SMALL, quality=80)
    clocks = view.clocks(event.peak_s)
    return [Shot(uri, width, height, event.peak_index, *clocks, at=view.share(event.peak_s), peak=True)]
