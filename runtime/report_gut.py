"""What the report says of the way of the capsule: landmarks, transit times, where an event lies, and the view."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from .assessment import reduced_view
from .figures import clock
from .landmarks import LANDMARKS, Landmarks, Position
from .study import Study

__all__ = ["SEGMENTS", "landmark_notes", "landmarks_table", "place", "quality_note"]

SEGMENTS = {
    "oesophagus": "Oesophagus",
    "stomach": "Stomach",
    "small-bowel": "Small bowel",
    "colon": "Colon",
    "after-end": "After the end of the examination",
}
_FIRST = {
    "stomach": "First picture of the stomach",
    "small-bowel": "First picture of the duodenum",
    "colon": "First picture of the caecum",
    "end": "End of the examination",
}


def place(position: Position | None) -> str:
    """``Small bowel, 37 % of its transit``; empty where nothing is known."""
    if position is None or position.segment is None:
        return ""
    name = SEGMENTS[position.segment]
    return name if position.share is None else f"{name}, {100 * position.share:.0f}\u00a0% of its transit"


def landmarks_table(study: Study, found: Landmarks) -> str:
    """Landmarks with their times and transit times as HTML; empty where there is no landmark."""
    if not found.marks:
        return ""
    tenths = study.source.time_kind == "playback"
    names = {label.key: label.name for label in study.model.labels}
    rows = "".join(
        f"<dt>{_FIRST[mark.name]}</dt><dd>{clock(mark.time_s, tenths=tenths)}, "
        + (
            "set by hand"
            if mark.source == "hand"
            else f"suggested by the model ({escape(names.get(mark.label or '', ''))})"
        )
        + "</dd>"
        for mark in found.marks
    )
    since = "" if found.gastric_from != "recording" else ", counted from the start of the recording"
    for title, value, note in (
        ("Gastric transit", found.gastric_s, since),
        ("Small-bowel transit", found.small_bowel_s, ""),
        ("Colonic transit", found.colon_s, ""),
    ):
        if value is not None:
            rows += f"<dt>{title}</dt><dd><strong>{_duration(value)}</strong>{note}</dd>"
    return f'<dl class="pairs">{rows}</dl>'


def landmark_notes(study: Study, found: Landmarks) -> Sequence[str]:
    """What stays unknown about the way, in sentences (text, not HTML)."""
    notes = []
    if found.transit_unknown:
        notes.append(
            "Transit times: not computed, because this file plays faster than the capsule recorded and how fast "
            "that was is not known. Run again with --capture-fps."
        )
    seen = {mark.name for mark in found.marks}
    looked = study.model.index_of("landmark")
    if "colon" not in seen:
        reached = "whether the capsule reached the colon" + (
            "" if found.marks else ", where in the bowel a finding lies, and transit times"
        )
        why = "the model saw no such landmark" if looked else "the model does not look for landmarks"
        notes.append(
            f"Anatomical landmarks: {reached} not known from this report, {why}"
            f"{'' if found.marks else ' and none was set by hand'}. "
            "Run again with, for example, --landmark small-bowel=00:41:10 --landmark colon=05:02:00."
        )
    if found.marks and found.transit_unknown is None and not {"small-bowel", "colon"} <= seen:
        lacking = " and ".join(LANDMARKS[name] for name in ("small-bowel", "colon") if name not in seen)
        notes.append(f"Small-bowel transit: not known without the {lacking}.")
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


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{seconds:.0f} s"
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"
