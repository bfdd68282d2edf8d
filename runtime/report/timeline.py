"""The timeline: colour of the pictures, segments of the gut, a lane for each finding, and its probability.

Every element that lies in time is a ``AxisSpan``: shares of the recording's length, drawn for the whole recording. The
script draws the same elements for a part of it; without a script the whole recording stays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..inference import Label
from ..recording import clock
from ..study import Columns, Event, columns
from .figures import axis_ticks, base64_text, colour_bar, curve_paths, set_aside_stretches, unread_stretches
from .transit import SEGMENTS, unsure
from .view import View

__all__ = ["AxisSpan", "Block", "Curve", "Lane", "SegmentBlock", "Tick", "TimelineRows", "make_timeline"]

_NO_ANSWER = 255
_STRETCHES = 2000  # as wide as a workstation's screen


@dataclass(frozen=True)
class AxisSpan:
    """A stretch of the time axis from ``begin`` to ``end``, shares of its length. ``status`` is for frames not read."""

    begin: float
    end: float
    status: str = ""


@dataclass(frozen=True)
class SegmentBlock:
    """A segment of the gut, or a stretch whose segment is not known; times as text."""

    key: str | None
    title: str
    span: AxisSpan
    begins: str
    ends: str


@dataclass(frozen=True)
class Tick:
    """A time below the axis; ``at`` is its place in percent."""

    at: float
    text: str


@dataclass(frozen=True)
class Block:
    """An event in its lane, as a link to the card of suggestion ``card``.

    ``event`` is its id, ``colour`` the CSS class of its label, and ``leads`` is True for the leading event of the card.
    """

    card: int
    event: int
    colour: str
    leads: bool
    title: str
    span: AxisSpan


@dataclass(frozen=True)
class Lane:
    """The events of one finding: those with a card as ``blocks``, the others as ``rest``. ``count`` is of all."""

    label: Label
    colour: str
    count: int
    blocks: list[Block]
    rest: list[AxisSpan]


@dataclass(frozen=True)
class Curve:
    """The probability of one finding over time.

    ``path`` is an SVG path, ``levels`` one byte a frame in base64 (254 is probability 1, 255 no answer), and
    ``threshold`` the height of its line in percent from above, None without an operating point.
    """

    label: Label
    colour: str
    shown: bool
    path: str
    levels: str
    threshold: float | None


@dataclass(frozen=True)
class TimelineRows:
    """Every row of the timeline.

    ``colours`` is a data URI, ``marks`` are the leading events of all findings in one row, and ``times`` and ``wide``
    are those of ``_times_ms``.
    """

    colours: str
    segments: list[SegmentBlock]
    unread: list[AxisSpan]
    unread_kinds: str
    set_aside: list[AxisSpan]
    ticks: list[Tick]
    marks: list[Block]
    lanes: list[Lane]
    curves: list[Curve]
    curve_name: str
    times: str
    wide: bool


def make_timeline(view: View, colours: npt.NDArray[Any] | None) -> TimelineRows:
    """Return the rows of the timeline. ``colours`` as in ``render_report``."""
    stretches = unread_stretches(view.study.frames, total_s=view.total_s)
    unread = [AxisSpan(begin, end, status) for status, begin, end in stretches]
    names = {"corrupt": "damaged", "unread": "not reached"}
    every = columns(view.study.frames)
    shown = _first_shown(view)
    times, wide = _times_ms(every)
    return TimelineRows(
        colours=colour_bar(colours) if colours is not None and len(colours) else "",
        segments=_segments(view),
        unread=unread,
        unread_kinds=" or ".join(sorted({names.get(span.status, span.status) for span in unread})),
        set_aside=[AxisSpan(*ends) for ends in set_aside_stretches(view.study.frames, total_s=view.total_s)],
        ticks=[
            Tick(100 * view.share(tick), clock(tick, tenths=view.total_s < 10))
            for tick in axis_ticks(view.total_s)
        ],
        marks=[_block(view, event) for event in view.events if view.leads(event)],
        lanes=[_lane(view, label) for label in view.labels],
        curves=_curves(view, every, shown),
        curve_name=view.names.get(shown, ""),
        times=times,
        wide=wide,
    )


def _times_ms(every: Columns) -> tuple[str, bool]:
    """Return the milliseconds of every timed frame in base64, and whether they are float64 instead of uint32.

    Uint32 takes half the bytes, and ends after 49.7 days.
    """
    times_ms = np.round(every.times_s[every.timed] * 1000)
    wide = bool(len(times_ms)) and float(times_ms.max()) >= 1 << 32
    return base64_text(times_ms.astype("<f8" if wide else "<u4")), wide


def _segments(view: View) -> list[SegmentBlock]:
    """Return the parts of the gut between the known landmarks; empty without a landmark."""
    blocks = []
    for stretch in view.landmarks.stretches:
        begin, end = stretch.begin_s or 0.0, view.total_s if stretch.end_s is None else stretch.end_s
        blocks.append(
            SegmentBlock(
                stretch.segment,
                SEGMENTS[stretch.segment] if stretch.segment else unsure(stretch),
                AxisSpan(view.share(begin), view.share(end)),
                view.clock(begin),
                view.clock(end),
            )
        )
    return blocks


def _lane(view: View, label: Label) -> Lane:
    blocks = [_block(view, event) for event in view.events if event.label == label.key]
    count = sum(event.label == label.key for event in view.study.events)
    return Lane(label, view.colour[label.key], count, blocks, _rest(view, label))


def _block(view: View, event: Event) -> Block:
    return Block(
        view.card_of(event),
        event.id,
        view.colour.get(event.label, "c0"),
        view.leads(event),
        view.describe(event),
        _span(view, event),
    )


def _span(view: View, event: Event) -> AxisSpan:
    return AxisSpan(view.share(event.start_s), view.share(event.end_s))


def _rest(view: View, label: Label) -> list[AxisSpan]:
    """Return the events of a label that have no card, joined where a screen can't show them apart."""
    marked = np.zeros(_STRETCHES, bool)
    for event in (event for event in view.rest if event.label == label.key):
        begin, end = (int(view.share(at) * _STRETCHES) for at in (event.start_s, event.end_s))
        marked[begin : max(end, begin + 1)] = True
    edges = (np.flatnonzero(np.diff(marked, prepend=False, append=False)) / _STRETCHES).tolist()
    return [AxisSpan(begin, end) for begin, end in zip(edges[::2], edges[1::2], strict=True)]


def _first_shown(view: View) -> str:
    """Return the key of the finding whose curve is shown first: that of the first suggestion."""
    if view.suggestions:
        return view.suggestions[0].label
    return view.labels[0].key if view.labels else ""


def _curves(view: View, every: Columns, shown: str) -> list[Curve]:
    """Return the probability over time of every finding; empty where no frame has an answer."""
    used = every.timed & every.given
    if not used.any() or not view.labels:
        return []
    findings = list(view.study.model.index_of("finding"))
    probabilities = every.probabilities[used][:, findings]
    times_s = every.times_s[used]
    paths = curve_paths(times_s, probabilities, total_s=view.total_s, max_gap_s=view.gap_s)
    # One byte a frame and finding is finer than a screen shows; the script draws parts of the recording from it.
    levels = np.full((int(every.timed.sum()), len(findings)), _NO_ANSWER, np.uint8)
    rounded = np.round(254 * np.clip(np.nan_to_num(probabilities), 0, 1)).astype(np.uint8)
    levels[every.given[every.timed]] = rounded
    points = view.study.model.operating_points
    return [
        Curve(
            label,
            view.colour[label.key],
            label.key == shown,
            path,
            base64_text(levels[:, at]),
            100 * (1 - points[label.key].threshold) if label.key in points else None,
        )
        for at, (label, path) in enumerate(zip(view.labels, paths, strict=True))
    ]
