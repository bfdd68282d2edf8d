"""The events of the report: a card for each with its picture, and what chooses among them."""

from __future__ import annotations

from html import escape

from ..events import rank_events
from ..study import Event, Study
from . import text
from .figures import jpeg, map_png
from .text import number, probability
from .transit import OF_TRANSIT
from .view import View

__all__ = ["render_events"]

# Pictures are what makes a page heavy. The 8 MB of base64 left for them hold some 400 frames of a capsule; the events
# to look at first come first, and a card says so where its picture was left out.
_PICTURE_BUDGET = 8_000_000
# Up to here the cards are one row, and the chosen event stands above them instead of beside.
_FEW = 6


def render_events(view: View) -> str:
    """HTML of the toolbar, the cards by time, and the place where the script shows one of them large."""
    if not view.study.events:
        return text.nothing_found(view.study)
    pictures = _pictures(view.study)
    few = " few" if len(view.events) <= _FEW else ""
    cards = "".join(_card(view, event, pictures.get(event.id, "")) for event in view.events)
    return (
        f'{_toolbar(view)}<div class="reading{few}"><div class="cards">{cards}</div>'
        '<aside class="viewer js-only" id="viewer" aria-labelledby="viewer-title">'
        '<div class="viewer-head"><h3 id="viewer-title"></h3><span class="buttons">'
        '<button type="button" id="previous" aria-label="Previous event">←</button>'
        '<button type="button" id="next" aria-label="Next event">→</button></span></div>'
        '<div id="viewer-body"></div><p class="small"><button type="button" id="show-time">Show on the timeline'
        "</button></p></aside></div>"
    )


def _toolbar(view: View) -> str:
    total = len(view.events)
    chips = []
    if len(view.first) < total:
        chips.append(
            f'<button type="button" data-filter="*" aria-pressed="false">To look at first'
            f'<span class="count">{len(view.first)}</span></button>'
        )
    chips.append(
        '<button type="button" data-filter="" aria-pressed="true">All'
        f'<span class="count">{number(total)}</span></button>'
    )
    for label in view.labels:
        if view.counts[label.key]:
            chips.append(
                f'<button type="button" class="{view.colour[label.key]}" data-filter="{escape(label.key)}" '
                f'aria-pressed="false"><span class="dot"></span>{escape(label.name)}'
                f'<span class="count">{number(view.counts[label.key])}</span></button>'
            )
    maps = ""
    if any(event.id in view.study.activations for event in view.study.events):
        maps = (
            '<span class="right"><button type="button" id="maps" aria-pressed="false">Activation maps</button>'
            '<span class="scale">low<i></i>high</span></span>'
        )
    return (
        f'<div class="toolbar js-only" role="group" aria-label="Events to show">{"".join(chips)}{maps}</div>'
        '<p class="keys js-only"><button type="button" id="keys" aria-pressed="true" '
        'title="Switch these keys off and on">Keys</button> '
        "<kbd>←</kbd> <kbd>→</kbd> previous and next event · <kbd>m</kbd> activation maps · <kbd>+</kbd> "
        "<kbd>-</kbd> zoom · <kbd>0</kbd> whole recording · <kbd>z</kbd> zoom to the event "
        "· <kbd>Esc</kbd> all events. "
        '<span id="status" role="status"></span></p>'
    )


def _pictures(study: Study) -> dict[int, str]:
    """HTML of the peak frame of each event, within the budget."""
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
        alt = f"Frame {event.peak_index}, where event {event.id} is most probable"
        image = f'<img src="{uri}" width="{width}" height="{height}" alt="{alt}" decoding="async">'
        if overlay:
            pictures[event.id] = f'<figure class="view" data-map="{overlay}">{image}</figure>'
        else:
            pictures[event.id] = f'<figure class="view">{image}</figure>'
    return pictures


def _card(view: View, event: Event, picture: str) -> str:
    picture = (
        picture or '<figure class="view"><span class="none">No picture of this frame was kept</span></figure>'
    )
    point = view.study.model.operating_points.get(event.label)
    mark, threshold = "", ""
    if point is not None:
        at = f"{100 * point.threshold:.1f}%"
        mark = f'<line class="mark" x1="{at}" x2="{at}" y1="-2" y2="10"/>'
        threshold = f'<span class="of"> (threshold {point.threshold:.2f})</span>'
    meter = (
        f'<svg class="meter" aria-hidden="true"><rect class="rail" width="100%" height="8" rx="4"/>'
        f'<rect class="level" width="{100 * event.peak_p:.1f}%" height="8" rx="4"/>{mark}</svg>'
    )
    # The card is narrow: there the percentage alone is shown, and what it is of where the event is shown large.
    where = view.place(event).replace(OF_TRANSIT, f'<span class="of">{OF_TRANSIT}</span>')
    first = "" if event.id in view.first else ' data-later=""'
    return (
        f'<article class="card {view.colour.get(event.label, "c0")}" id="event-{event.id}" tabindex="0" '
        f'data-label="{escape(event.label)}" data-from="{view.share(event.start_s):.6f}" '
        f'data-to="{view.share(event.end_s):.6f}" data-at="{view.share(event.peak_s):.6f}"{first} '
        f'aria-label="{view.describe(event)}">{picture}<div class="text">'
        f'<h3><span class="dot"></span>{view.name(event)}<span class="number">{event.id}</span></h3>'
        f'<p class="when">{view.clock(event.start_s)} – {view.clock(event.end_s)} '  # noqa: RUF001
        f'<span class="frames">{number(event.frames, "frame")}</span></p>'
        + (f'<p class="where">{where}</p>' if where else "")
        + f'{meter}<p class="small">Probability {probability(event.peak_p)}{threshold}<br>'
        f"Frame {event.peak_index:,} at {view.clock(event.peak_s)}</p></div></article>"
    )
