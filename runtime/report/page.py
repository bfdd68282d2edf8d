"""``report.html``: the whole study as one page that needs nothing but a browser.

No request leaves the page and no style or script runs that is not its own: its content security policy allows
data pictures and the hashes of its one style sheet and one script. It is the same byte for byte for the same
study.
"""

from __future__ import annotations

import base64
import hashlib
from html import escape
from importlib import resources
from string import Template
from typing import Any

import numpy.typing as npt

from ..recording import clock
from ..study import Study
from . import text
from .event_cards import render_events
from .model_card import model_card
from .model_reach import blind_spots
from .text import number
from .timeline import render_timeline
from .transit import way
from .view import View

__all__ = ["render_report"]

# The script in the order in which its parts build on each other.
_SCRIPTS = ("page", "timeline", "maps", "events", "keys")


def render_report(study: Study, *, tool_version: str, colours: npt.NDArray[Any] | None = None) -> str:
    """The page as text.

    Args:
        tool_version: version of capsule-edge, shown in the footer.
        colours: mean colour of the frames in equal stretches of container time, RGB 0..255 of shape (bins, 3),
            NaN for a stretch without a frame.
    """
    style, page = _asset("page.css"), _asset("page.html")
    script = "".join(_asset(f"{name}.js") for name in _SCRIPTS)
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    view = View(study)
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
        summary=text.summary(study, view.landmarks),
        ledger=text.ledger(study),
        timeline=render_timeline(view, colours),
        heading=_heading(view),
        lead=_lead(view),
        findings=render_events(view),
        way=way(study, view.landmarks),
        assessed=text.assessed(study),
        times=text.times(study),
        model=model_card(study),
        recording_sha256=escape(study.source.sha256),
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


def _heading(view: View) -> str:
    events = view.study.events
    if not events:
        return "No finding reached its threshold"
    labels = len({event.label for event in events})
    kinds = f"{number(labels)} {'kind' if labels == 1 else 'kinds'} of finding"
    return f"{number(len(events), 'suggested event')}, {kinds}, to be confirmed"


def _lead(view: View) -> str:
    """How to read the cards, and how many are not shown at first."""
    total = len(view.study.events)
    if not total:
        return ""
    words = (
        "An event is a stretch of frames in which the model suspects one finding. The picture is the frame where it "
        "is most probable; its coloured copy (activation map) shows which parts of it speak for the finding. The bar "
        "shows how probable it is, the mark in it the threshold from which it counts."
    )
    if len(view.first) < total:
        words += (
            f" Shown first are {len(view.first)} of {number(total)}: the most probable of each kind, so that a "
            "frequent finding does not hide a rare one."
        )
    if view.rest:
        words += f" This page has room for {number(len(view.events))} of them, the others are in study.json."
    return f'<p class="lead">{words}</p>{blind_spots(view.study)}'
