"""``report.html``: the whole study as one page that needs nothing but a browser.

The page makes no request, and no style or script runs but its own: its content security policy allows data pictures
and the hashes of its one style sheet and one script. The same study gives the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import numpy.typing as npt

from ..recording import clock
from ..study import Study
from . import text
from .event_cards import make_cards, make_filters
from .model_card import model_card
from .templates import read_asset, render_template
from .text import number
from .timeline import make_timeline
from .transit import way
from .view import View

__all__ = ["render_report"]

# The script, in the order in which its parts build on each other.
_SCRIPTS = ("page", "timeline", "contour", "viewer", "events", "keys")


def render_report(study: Study, *, tool_version: str, colours: npt.NDArray[Any] | None = None) -> str:
    """Return the page as text.

    Args:
        study: the study to show.
        tool_version: version of capsule-edge, shown in the footer.
        colours: mean colour of the frames in equal stretches of container time, RGB 0..255 of shape (bins, 3),
            NaN for a stretch without a frame.
    """
    style = read_asset("page.css")
    script = "".join(read_asset(f"{name}.js") for name in _SCRIPTS)
    view = View(study)
    values: dict[str, Any] = {
        "policy": _policy(style, script),
        "style": style,
        "script": script,
        "version": tool_version,
        "study": study,
        "view": view,
        "facts": _facts(study, view.total_s),
        "heading": _heading(view),
        "notices": text.notices(study),
        "remarks": text.file_remarks(study),
        "tiles": text.summary(study, view.suggestions, view.landmarks),
        "timeline": make_timeline(view, colours),
        "filters": make_filters(view),
        "has_maps": any(event.id in study.activations for event in study.events),
        "nothing_found": text.nothing_found(study),
        "score_meaning": text.score_meaning(study),
        "way": way(study, view.landmarks),
        "ledger": text.ledger(study),
        "assessed": text.assessed(study),
        "times": text.times(study),
        "model": model_card(study),
    }
    # How many pictures fit is known once the page without them is written.
    bare = render_template("page.html", **values, cards=make_cards(view, None))
    size = len(bare.encode("utf-8", "replace"))
    return render_template("page.html", **values, cards=make_cards(view, size))


def _policy(style: str, script: str) -> str:
    """Return the content security policy of the page."""
    return (
        f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _hash(source: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(source.encode("utf-8")).digest()).decode("ascii")


def _facts(study: Study, total_s: float) -> str:
    source = study.source
    rate = f", captured at {source.capture_fps:g} a second" if source.capture_fps is not None else ""
    return (
        f"{number(study.ledger.container, 'frame')}{rate} · {clock(total_s)} long · "
        f"{source.width} × {source.height} · {source.codec}"  # noqa: RUF001
    )


def _heading(view: View) -> str:
    events = view.study.events
    if not events:
        return (
            "No finding reached its threshold" if text.has_evidence(view.study) else "Nothing was looked for"
        )
    labels = len({one.label for one in view.suggestions})
    kinds = f"{number(labels)} {'kind' if labels == 1 else 'kinds'} of finding"
    return f"{number(len(view.suggestions), 'suggestion')}, {kinds}, to be confirmed"
