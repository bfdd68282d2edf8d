"""``report.html``: the whole study as one page that needs nothing but a browser.

No request leaves the page and no style or script runs that is not its own: its content security policy allows
data pictures and the hashes of its one style sheet and one script. It is the same byte for byte for the same
study.
"""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from html import escape
from importlib import resources
from string import Template
from typing import Any

import numpy as np
import numpy.typing as npt

from . import report_text as text
from .events import capture_scale, median_frame_distance
from .figures import (
    axis_ticks,
    clock,
    colour_bar,
    curve_paths,
    jpeg,
    map_png,
    percent,
    unread_stretches,
)
from .report_text import number, probability
from .spec import Label
from .study import Event, Study

__all__ = ["render_report"]

# Pictures are what makes a page heavy. The 8 MB of base64 left for them hold some 500 frames of a capsule;
# events with the highest peaks come first, and a card says so where its picture was left out.
_PICTURE_BUDGET = 8_000_000
_COLOURS = 12  # classes c0 to c11 of report.css


def render_report(study: Study, *, tool_version: str, colours: npt.NDArray[Any] | None = None) -> str:
    """The page as text.

    Args:
        tool_version: version of capsule-edge, shown in the footer. colours: mean colour of the frames in
        equal stretches of container time, RGB 0..255 of shape (bins, 3), NaN
            for a stretch without a frame.
    """
    style, script, page = (_asset(f"report.{kind}") for kind in ("css", "js", "html"))
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    view = _View(study)
    return Template(page).substitute(
        policy=policy,
        version=escape(tool_version),
        title=escape(f"{study.source.name} - capsule-edge"),
        style=style,
        script=script,
        name=escape(study.source.name),
        facts=_facts(study, view.total_s),
        intended=escape(study.model.intended_use),
        alerts=text.alerts(study),
        ledger=text.ledger(study),
        timeline=_timeline(view, colours),
        heading=_heading(study),
        findings=_findings(view),
        assessed=text.assessed(study),
        times=text.times(study),
        model=text.model_card(study),
        recording_sha256=escape(study.source.sha256),
    )


class _View:
    """What several sections share: names and colours of the findings, the time axis, how to write a time."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self.labels: list[Label] = [label for label in study.model.labels if label.role == "finding"]
        self.names = {label.key: label.name for label in study.model.labels}
        self.colour = {label.key: f"c{i % _COLOURS}" for i, label in enumerate(self.labels)}
        self.counts = Counter(event.label for event in study.events)
        self.distance_s = median_frame_distance(study.frames)
        last = max((frame.time_s for frame in study.frames if frame.time_s is not None), default=0.0)
        self.total_s = max(study.source.duration_s or 0.0, last + (self.distance_s or 0.0)) or 1.0

    def clock(self, seconds: float) -> str:
        # Files that play at 30 frames a second pass several frames, and whole events, within one second.
        return clock(seconds, tenths=self.study.source.time_kind == "playback")

    def name(self, event: Event) -> str:
        return escape(self.names.get(event.label, event.label))

    def describe(self, event: Event) -> str:
        """One line for those who hear the page rather than see it."""
        return (
            f"Event {event.id}: {self.name(event)}, {self.clock(event.start_s)} to "
            f"{self.clock(event.end_s)}, "
            f"peak probability {event.peak_p:.2f}"
        )


def _asset(name: str) -> str:
    text = (resources.files(__package__) / "assets" / name).read_text(encoding="utf-8")
    return text.replace("\r\n", "\n")


def _hash(source: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(source.encode("utf-8")).digest()).decode("ascii")


def _facts(study: Study, total_s: float) -> str:
    source = study.source
    rate = f", captured at {source.capture_fps:g} a second" if source.capture_fps is not None else ""
    return escape(
        f"{number(study.ledger.container, 'frame')}{rate} · {clock(total_s)} long · "
        f"{source.width} × {source.height} · {source.codec}"  # noqa: RUF001
    )


def _heading(study: Study) -> str:
    if not study.events:
        return "No finding above the operating points"
    labels = len({event.label for event in study.events})
    kinds = f"{number(labels)} {'kind' if labels == 1 else 'kinds'} of finding"
    return f"{number(len(study.events), 'suggested event')}, {kinds}, to be confirmed"


def _timeline(view: _View, colours: npt.NDArray[Any] | None) -> str:
    rows = []
    if colours is not None and len(colours):
        image = f'<image href="{colour_bar(colours)}" width="100%" height="44" preserveAspectRatio="none"/>'
        picture = (
            f'<svg class="colour" role="img" aria-label="Mean colour of the frames over time">{image}</svg>'
        )
        rows.append(_row("Mean colour", picture, "tall"))
    stretches = unread_stretches(view.study.frames, total_s=view.total_s)
    if stretches:
        marks = "".join(
            f'<rect class="s-{status}" x="{100 * begin:.1f}%" width="{100 * (end - begin):.1f}%" '
            'y="6" height="10"/>'
            for status, begin, end in stretches
        )
        kinds = " or ".join(sorted({status for status, _, _ in stretches}))
        picture = f'<svg class="lane" role="img" aria-label="Stretches with {kinds} frames">{marks}</svg>'
        rows.append(_row(f"Not read ({kinds})", picture))
    rows.append(_row("", _axis(view)))
    rows.extend(_lane(view, label) for label in view.labels)
    rows.append(_curves(view))
    return f'<div class="timeline">{"".join(rows)}<div class="playhead"></div></div>'


def _row(name: str, picture: str, kind: str = "") -> str:
    return f'<div class="row {kind}"><div class="row-name">{name}</div>{picture}</div>'


def _axis(view: _View) -> str:
    ticks = []
    tenths = view.total_s < 10
    for position, tick in enumerate(axis_ticks(view.total_s)):
        x = percent(tick, view.total_s)
        odd = ' class="odd"' if position % 2 else ""
        ticks.append(
            f'<g{odd}><line x1="{x}" x2="{x}" y1="0" y2="5"/>'
            f'<text x="{x}" y="17">{clock(tick, tenths=tenths)}</text></g>'
        )
    return f'<svg class="axis" aria-hidden="true">{"".join(ticks)}</svg>'


def _lane(view: _View, label: Label) -> str:
    """Name as a filter, events as links: without a script they still lead to their cards."""
    blocks = []
    for event in view.study.events:
        if event.label != label.key:
            continue
        x, width = percent(event.start_s, view.total_s), percent(event.end_s - event.start_s, view.total_s)
        box = f'x="{x}" width="{width}"'
        title = view.describe(event)
        blocks.append(
            f'<a href="#event-{event.id}" aria-label="{title}"><title>{title}</title>'
            f'<rect class="hit" {box} y="3" height="16"/><rect class="block" {box} y="5" height="12"/></a>'
        )
    rail = '<line class="rail" x1="0" x2="100%" y1="11" y2="11"/>'
    colour, empty = view.colour[label.key], "" if blocks else " empty"
    return (
        f'<div class="row {colour}{empty}">'
        f'<button type="button" class="lane-name" data-filter="{escape(label.key)}" '
        f'aria-pressed="false"><span class="dot"></span>{escape(label.name)}'
        f'<span class="count">{number(len(blocks))}</span></button>'
        f'<svg class="lane" role="group" aria-label="{escape(label.name)}">'
        f"{rail}{''.join(blocks)}</svg></div>"
    )


def _curves(view: _View) -> str:
    """Probability over time of every finding, one shown at a time: first that of the highest peak."""
    used = [
        (frame.time_s, frame.probabilities)
        for frame in view.study.frames
        if frame.time_s is not None and frame.probabilities is not None
    ]
    if not used or not view.labels:
        return ""
    times_s = np.array([time_s for time_s, _ in used], np.float64)
    columns = list(view.study.model.index_of("finding"))
    probabilities = np.stack([values for _, values in used])[:, columns]
    source, rule = view.study.source, view.study.model.events
    scale = capture_scale(
        rule, median_distance_s=view.distance_s, time_kind=source.time_kind, capture_fps=source.capture_fps
    )
    paths = curve_paths(times_s, probabilities, total_s=view.total_s, max_gap_s=rule.max_gap_s / scale)
    best = max(view.study.events, key=lambda event: (event.peak_p, -event.id), default=None)
    shown = best.label if best is not None else view.labels[0].key
    groups = []
    for label, path in zip(view.labels, paths, strict=True):
        point = view.study.model.operating_points.get(label.key)
        level = "" if point is None else f"{100 * (1 - point.threshold):.1f}%"
        line = f'<line x1="0" x2="100%" y1="{level}" y2="{level}"/>' if level else ""
        on = " on" if label.key == shown else ""
        groups.append(
            f'<g class="curve {view.colour[label.key]}{on}" data-label="{escape(label.key)}" '
            f'data-name="{escape(label.name)}"><svg width="100%" height="100%" viewBox="0 0 2000 100" '
            f'preserveAspectRatio="none"><path d="{path}"/></svg>{line}</g>'
        )
    title = (
        f'Probability, 0 to 1: <span id="curve-name">{escape(view.names[shown])}</span>. Dashed: threshold.'
    )
    picture = (
        '<svg class="curves" role="img" aria-label="Probability over time">'
        f'<rect class="frame" width="100%" height="100%"/>{"".join(groups)}</svg>'
    )
    return f'<div class="row"><div class="row-name">{title}</div>{picture}</div>'


def _findings(view: _View) -> str:
    if not view.study.events:
        return text.nothing_found(view.study)
    pictures = _pictures(view.study)
    cards = "".join(_card(view, event, pictures.get(event.id, "")) for event in view.study.events)
    reading = (
        "The bar is the highest probability of a single frame, the mark in it the threshold of the finding."
    )
    return f'<p class="reading">{reading}</p>{_toolbar(view)}<div class="cards">{cards}</div>'


def _toolbar(view: _View) -> str:
    total = number(len(view.study.events))
    chips = [
        '<button type="button" data-filter="" aria-pressed="true">All'
        f'<span class="count">{total}</span></button>'
    ]
    for label in view.labels:
        if view.counts[label.key]:
            chips.append(
                f'<button type="button" class="{view.colour[label.key]}" data-filter="{escape(label.key)}" '
                f'aria-pressed="false"><span class="dot"></span>{escape(label.name)}'
                f'<span class="count">{number(view.counts[label.key])}</span></button>'
            )
    maps = ""
    if any(
        event.id in view.study.activations and event.id in view.study.thumbnails
        for event in view.study.events
    ):
        maps = (
            '<button type="button" id="maps" aria-pressed="false">Activation maps</button>'
            '<span class="scale">low<i></i>high</span>'
        )
    return (
        f'<div class="toolbar js-only" role="group" aria-label="Findings">{"".join(chips)}'
        f'<span class="right">{maps}<button type="button" id="previous" aria-label="Previous '
        f'event">←</button>'
        '<button type="button" id="next" aria-label="Next event">→</button></span></div>'
        '<p class="keys js-only"><kbd>j</kbd> <kbd>k</kbd> or <kbd>←</kbd> <kbd>→</kbd> move between events, '
        "<kbd>m</kbd> shows the activation maps, <kbd>Esc</kbd> clears the filter. "
        '<span id="status" class="hidden" role="status"></span></p>'
    )


def _pictures(study: Study) -> dict[int, str]:
    """HTML of the peak frame of each event, within the budget."""
    left = _PICTURE_BUDGET
    pictures = {}
    for event in sorted(study.events, key=lambda event: (-event.peak_p, event.id)):
        rgb = study.thumbnails.get(event.id)
        if rgb is None:
            continue
        uri, width, height = jpeg(rgb, longest=288, quality=84)
        activation = study.activations.get(event.id)
        overlay = "" if activation is None else map_png(activation)
        left -= len(uri) + len(overlay)
        if left < 0:
            break
        alt = f"Frame {event.peak_index}, the peak of event {event.id}"
        image = f'<img src="{uri}" width="{width}" height="{height}" alt="{alt}" decoding="async">'
        if overlay:
            pictures[event.id] = (
                f'<figure class="view" data-map="{overlay}">{image}'
                '<button type="button" class="map-toggle js-only" aria-pressed="false">Map</button></figure>'
            )
        else:
            pictures[event.id] = f'<figure class="view">{image}</figure>'
    return pictures


def _card(view: _View, event: Event, picture: str) -> str:
    picture = (
        picture or '<figure class="view"><span class="none">No picture of this frame was kept</span></figure>'
    )
    point = view.study.model.operating_points.get(event.label)
    mark = ""
    if point is not None:
        at = f"{100 * point.threshold:.1f}%"
        mark = f'<line class="mark" x1="{at}" x2="{at}" y1="-1" y2="11"/>'
    meter = (
        f'<svg class="meter" aria-hidden="true"><rect class="rail" width="100%" height="10" rx="5"/>'
        f'<rect class="level" width="{100 * event.peak_p:.1f}%" height="10" rx="5"/>{mark}</svg>'
    )
    return (
        f'<article class="card {view.colour.get(event.label, "c0")}" id="event-{event.id}" tabindex="0" '
        f'data-label="{escape(event.label)}" data-at="{event.peak_s / view.total_s:.5f}" '
        f'aria-label="{view.describe(event)}">{picture}<div class="text">'
        f'<h3><span class="dot"></span>{view.name(event)}<span class="number">{event.id}</span></h3>'
        f'<p class="when">{view.clock(event.start_s)} – {view.clock(event.end_s)}</p>{meter}'  # noqa: RUF001
        f'<p class="small">Peak {probability(event.peak_p)} at {view.clock(event.peak_s)}<br>'
        f"{number(event.frames, 'frame')}, peak frame {event.peak_index}</p></div></article>"
    )
