"""The timeline: colour of the pictures, parts of the gut, a lane for each finding, and its probability.

Everything that lies in time carries ``data-from`` and ``data-to``, shares of the recording's length, and is drawn
for the whole recording. The script draws the same elements for a part of it; without one the whole stays.
"""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np
import numpy.typing as npt

from ..inference import Label
from ..recording import clock
from ..study import columns
from .figures import axis_ticks, base64_text, colour_bar, curve_paths, unread_stretches
from .transit import SEGMENTS, unsure
from .view import View

__all__ = ["render_timeline"]

_NO_ANSWER = 255
_STRETCHES = 2000  # as wide as a workstation's screen


def render_timeline(view: View, colours: npt.NDArray[Any] | None) -> str:
    """HTML of the timeline with its controls. ``colours`` as in ``render_report``."""
    rows = []
    if colours is not None and len(colours):
        # viewBox and not data-from: a picture is stretched, where text and lines must not be.
        picture = (
            '<svg class="colour" role="img" aria-label="Colour of the pictures over time">'
            '<svg class="zoomed" width="100%" height="100%" viewBox="0 0 1 1" preserveAspectRatio="none">'
            f'<image href="{colour_bar(colours)}" width="1" height="1" preserveAspectRatio="none"/></svg></svg>'
        )
        rows.append(_row("Colour of the pictures", picture, "tall"))
    rows += [_segments(view), _unread(view), _row("", _axis(view))]
    rows += [_lane(view, label) for label in view.labels]
    rows.append(_curves(view))
    every = columns(view.study.frames)
    ticks = base64_text(np.round(every.times_s[every.timed] * 1000).astype("<u4"))
    return (
        f'{_controls(view)}<div class="timeline" id="timeline" data-total="{view.total_s:.6f}" '
        f'data-gap="{view.gap_s:.6f}" data-tenths="{int(view.tenths)}" data-times="{ticks}">{"".join(rows)}'
        '<div class="playhead" id="playhead"></div><div class="playhead hover" id="hover"></div></div>'
    )


def _controls(view: View) -> str:
    whole = f"{view.clock(0)} to {view.clock(view.total_s)}"
    return (
        '<div class="zoom js-only" role="group" aria-label="Part of the recording that is shown">'
        '<button type="button" id="zoom-in" aria-label="Zoom in">+</button>'
        '<button type="button" id="zoom-out" aria-label="Zoom out">−</button>'  # noqa: RUF001
        '<button type="button" id="zoom-all">Whole recording</button>'
        '<button type="button" id="zoom-event">Zoom to the event</button>'
        '<input type="range" id="pan" min="0" max="1000" value="0" disabled '
        'aria-label="Position of the part that is shown">'
        f'<output id="window" for="pan">{whole}</output>'
        '<span id="readout" aria-hidden="true">Click and wheel, or double click, to zoom</span></div>'
    )


def _row(name: str, picture: str, kind: str = "") -> str:
    return f'<div class="row {kind}"><div class="row-name">{name}</div>{picture}</div>'


def _span(begin: float, end: float) -> str:
    """Attributes of an element from ``begin`` to ``end``, shares of the recording."""
    return (
        f'data-from="{begin:.6f}" data-to="{end:.6f}" x="{100 * begin:.4f}%" '
        f'width="{100 * max(end - begin, 0):.4f}%"'
    )


def _segments(view: View) -> str:
    """The parts of the gut between the landmarks that are known; empty without one."""
    blocks = []
    for stretch in view.landmarks.stretches:
        begin, end = stretch.begin_s or 0.0, view.total_s if stretch.end_s is None else stretch.end_s
        title = SEGMENTS[stretch.segment] if stretch.segment else unsure(stretch)
        blocks.append(
            f'<svg class="segment g-{stretch.segment}" {_span(view.share(begin), view.share(end))} height="18" y="2">'
            f"<title>{title}, {view.clock(begin)} to {view.clock(end)}</title>"
            f'<rect width="100%" height="18"/><text x="6" y="13">{title}</text></svg>'
        )
    if not blocks:
        return ""
    picture = f'<svg class="lane" role="group" aria-label="Segments of the gut">{"".join(blocks)}</svg>'
    return _row("Segment", picture)


def _unread(view: View) -> str:
    stretches = unread_stretches(view.study.frames, total_s=view.total_s)
    if not stretches:
        return ""
    marks = "".join(
        f'<rect class="s-{status}" {_span(begin, end)} y="6" height="10"/>'
        for status, begin, end in stretches
    )
    names = {"corrupt": "damaged", "unread": "not reached"}
    kinds = " or ".join(sorted({names.get(status, status) for status, _, _ in stretches}))
    picture = f'<svg class="lane" role="img" aria-label="Stretches with {kinds} frames">{marks}</svg>'
    return _row(f"Not read ({kinds})", picture)


def _axis(view: View) -> str:
    ticks = []
    tenths = view.total_s < 10
    for position, tick in enumerate(axis_ticks(view.total_s)):
        x = f"{100 * view.share(tick):.3f}%"
        odd = ' class="odd"' if position % 2 else ""
        ticks.append(
            f'<g{odd}><line x1="{x}" x2="{x}" y1="0" y2="5"/>'
            f'<text x="{x}" y="17">{clock(tick, tenths=tenths)}</text></g>'
        )
    return f'<svg class="axis" id="axis" aria-hidden="true">{"".join(ticks)}</svg>'


def _lane(view: View, label: Label) -> str:
    """Name as a filter, events as links: without a script they still lead to their cards."""
    blocks = []
    for event in (event for event in view.events if event.label == label.key):
        box = _span(view.share(event.start_s), view.share(event.end_s))
        title = view.describe(event)
        blocks.append(
            f'<a href="#event-{event.id}" aria-label="{title}"><title>{title}</title>'
            f'<rect class="hit" {box} y="3" height="16"/><rect class="block" {box} y="5" height="12"/></a>'
        )
    rail = '<line class="rail" x1="0" x2="100%" y1="11" y2="11"/>'
    colour, empty = view.colour[label.key], "" if blocks else " empty"
    count = sum(event.label == label.key for event in view.study.events)
    return (
        f'<div class="row {colour}{empty}">'
        f'<button type="button" class="lane-name" data-filter="{escape(label.key)}" '
        f'aria-pressed="false"><span class="dot"></span>{escape(label.name)}'
        f'<span class="count">{count:,}</span></button>'
        f'<svg class="lane" role="group" aria-label="{escape(label.name)}">'
        f"{rail}{_rest(view, label)}{''.join(blocks)}</svg></div>"
    )


def _rest(view: View, label: Label) -> str:
    """The events of a label that have no card, joined where they lie closer than can be seen."""
    marked = np.zeros(_STRETCHES, bool)
    for event in (event for event in view.rest if event.label == label.key):
        begin, end = (int(view.share(at) * _STRETCHES) for at in (event.start_s, event.end_s))
        marked[begin : max(end, begin + 1)] = True
    edges = np.flatnonzero(np.diff(marked, prepend=False, append=False)) / _STRETCHES
    return "".join(
        f'<rect class="rest" {_span(begin, end)} y="7" height="8"/>'
        for begin, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)
    )


def _curves(view: View) -> str:
    """Probability over time of every finding, one shown at a time: first that of the highest peak."""
    every = columns(view.study.frames)
    used = every.timed & every.given
    if not used.any() or not view.labels:
        return ""
    findings = list(view.study.model.index_of("finding"))
    probabilities = every.probabilities[used][:, findings]
    times_s = every.times_s[used]
    paths = curve_paths(times_s, probabilities, total_s=view.total_s, max_gap_s=view.gap_s)
    # One byte a frame and finding is finer than a screen shows; the script draws parts of the recording from it.
    levels = np.full((int(every.timed.sum()), len(findings)), _NO_ANSWER, np.uint8)
    levels[every.given[every.timed]] = np.round(254 * np.clip(np.nan_to_num(probabilities), 0, 1)).astype(
        np.uint8
    )
    best = max(view.study.events, key=lambda event: (event.peak_p, -event.id), default=None)
    shown = best.label if best is not None else view.labels[0].key
    groups = []
    for at, (label, path) in enumerate(zip(view.labels, paths, strict=True)):
        point = view.study.model.operating_points.get(label.key)
        level = "" if point is None else f"{100 * (1 - point.threshold):.1f}%"
        line = f'<line x1="0" x2="100%" y1="{level}" y2="{level}"/>' if level else ""
        on = " on" if label.key == shown else ""
        groups.append(
            f'<g class="curve {view.colour[label.key]}{on}" data-label="{escape(label.key)}" '
            f'data-name="{escape(label.name)}" data-levels="{base64_text(levels[:, at])}">'
            '<svg width="100%" height="100%" viewBox="0 0 2000 100" '
            f'preserveAspectRatio="none"><path d="{path}"/></svg>{line}</g>'
        )
    title = (
        f'Probability of <span id="curve-name">{escape(view.names[shown])}</span> in each frame, 0 to 1. '
        "Dashed: its threshold."
    )
    picture = (
        '<svg class="curves" role="img" aria-label="Probability over time">'
        f'<rect class="frame" width="100%" height="100%"/>{"".join(groups)}</svg>'
    )
    return _row(title, picture)
