"""What the report says of the way of the capsule: landmarks, transit times, where an event lies, and the view."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from ..events import LANDMARKS, Landmarks, Position, Stretch
from ..recording import clock
from ..study import Study, reduced_view

__all__ = ["OF_TRANSIT", "SEGMENTS", "duration", "place", "quality_note", "unsure", "way"]

SEGMENTS = {
    "oesophagus": "Oesophagus",
    "stomach": "Stomach",
    "small-bowel": "Small bowel",
    "colon": "Colon",
    "after-end": "After the end of the examination",
}
OF_TRANSIT = " of its transit time"
_FIRST = {
    "stomach": "First picture of the stomach",
    "small-bowel": "First picture of the duodenum",
    "colon": "First picture of the caecum",
    "end": "End of the examination",
}


def place(position: Position | None) -> str:
    """``Small bowel, 37 % of its transit time``; empty where nothing is known (text, not HTML)."""
    if position is None or position.segment is None:
        return ""
    name = SEGMENTS[position.segment]
    return name if position.share is None else f"{name}, {100 * position.share:.0f}\u00a0%{OF_TRANSIT}"


def unsure(stretch: Stretch) -> str:
    """Name of a stretch whose segment is not known."""
    if stretch.after is None:
        return "Before the colon" if stretch.end_s is not None else ""
    return f"{SEGMENTS[stretch.after]} or beyond"


def way(study: Study, found: Landmarks) -> str:
    """Landmarks, transit times and what is not known of them, as HTML."""
    tenths = study.source.time_kind == "playback"
    names = {label.key: label.name for label in study.model.labels}
    rows = ""
    for mark in found.marks:
        by = "set by hand"
        if mark.source == "model":
            by = f"suggested by the model ({escape(names.get(mark.label or '', ''))})"
        rows += f"<dt>{_FIRST[mark.name]}</dt><dd>{clock(mark.time_s, tenths=tenths)}, {by}</dd>"
    since = "" if found.gastric_from != "recording" else ", counted from the start of the recording"
    for title, value, note in (
        ("Gastric transit", found.gastric_s, since),
        ("Small-bowel transit", found.small_bowel_s, ""),
        ("Colonic transit", found.colon_s, ""),
    ):
        if value is not None:
            rows += f"<dt>{title}</dt><dd><strong>{duration(value)}</strong>{note}</dd>"
    table = f'<dl class="pairs">{rows}</dl>' if rows else ""
    notes = (*_unknown(study, found), escape(quality_note(study)))
    return table + "".join(f"<p>{note}</p>" for note in notes)


def _unknown(study: Study, found: Landmarks) -> Sequence[str]:
    """What stays unknown about the way, in sentences of HTML."""
    notes = []
    seen = {mark.name for mark in found.marks}
    if not found.marks:
        looked = (
            "The model saw no landmark" if study.model.index_of("landmark") else "The model knows no landmark"
        )
        notes.append(
            "In which segment a finding lies, transit times and whether the colon was reached are not known. "
            f"{looked}, and none was set by hand. To set them, run again with the times of the first picture of the "
            "duodenum and of the caecum, for example "
            "<code>--landmark small-bowel=00:41:10</code> <code>--landmark colon=05:02:00</code>."
        )
    elif lacking := [name for name in ("small-bowel", "colon") if name not in seen]:
        names = " and ".join(f"{name} ({LANDMARKS[name]})" for name in lacking)
        notes.append(
            f"Small-bowel transit is not known. Not set: {names}."
            + ("" if "colon" in seen else " This report does not say whether the colon was reached.")
        )
    if found.transit_unknown:
        notes.append(
            "Transit times are not computed: this file plays faster than the capsule recorded, and how fast it "
            "recorded is not known. Run again with <code>--capture-fps</code>."
        )
    return notes


def quality_note(study: Study) -> str:
    """How much of the view was reduced, or that nobody looked (text, not HTML)."""
    names = "; ".join(label.name for label in study.model.labels if label.role == "quality")
    if not names:
        return "Quality of the view and cleansing: not assessed, the model does not look for it."
    reduced = reduced_view(study)
    if reduced is None:
        return f"Quality of the view ({names}): not measured."
    count, answered = reduced
    return (
        f"Quality of the view ({names}): reduced on {count:,} of {answered:,} frames "
        f"({100 * count / answered:.1f}\u00a0%). Findings may be hidden there."
    )


def duration(seconds: float) -> str:
    """``4 h 20 min``."""
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{seconds:.0f} s"
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"
