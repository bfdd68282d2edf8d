"""The capsule's passage in the report: landmarks, transit times, the place of each event, and the view."""

from __future__ import annotations

from dataclasses import dataclass

from ..events import LANDMARKS, Landmarks, Position, Stretch
from ..recording import clock
from ..study import Study, reduced_view

__all__ = ["SEGMENTS", "Way", "duration", "place", "quality_note", "unsure", "way"]

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


@dataclass(frozen=True)
class Way:
    """Landmarks and transit times, and what is not known of them.

    ``marks`` are (landmark, its time and source), ``transits`` (name, duration, note). ``lacking`` describes the
    landmarks between which the small bowel lies, where they are not known. ``clocks`` says which clock the times of
    landmarks and the transit times are stated by.
    """

    marks: list[tuple[str, str]]
    transits: list[tuple[str, str, str]]
    lacking: list[str]
    knows_landmarks: bool
    colon_seen: bool
    transit_unknown: bool
    quality: str
    clocks: str


def place(position: Position | None) -> tuple[str, bool]:
    """Return where an event lies, and whether a share of the transit time is part of it.

    Returns:
        ("Small bowel, 37 %", True); ("Small bowel", False) without a transit time; ("", False) where nothing is
        known.
    """
    if position is None or position.segment is None:
        return "", False
    name = SEGMENTS[position.segment]
    if position.share is None:
        return name, False
    return f"{name}, {100 * position.share:.0f}\u00a0%", True


def unsure(stretch: Stretch) -> str:
    """Return the name of a stretch whose segment is not known."""
    if stretch.after is None:
        return "Before the colon" if stretch.end_s is not None else ""
    return f"{SEGMENTS[stretch.after]} or beyond"


def way(study: Study, found: Landmarks) -> Way:
    """Return landmarks, transit times and what is not known of them."""
    tenths = study.source.time_kind == "playback"
    names = {label.key: label.name for label in study.model.labels}
    marks = []
    for mark in found.marks:
        by = "set by hand"
        if mark.source == "model":
            by = f"suggested by the model ({names.get(mark.label or '', '')})"
        marks.append((_FIRST[mark.name], f"{clock(mark.time_s, tenths=tenths)}, {by}"))
    since = "" if found.gastric_from != "recording" else ", counted from the start of the recording"
    transits = (
        ("Gastric transit", found.gastric_s, since),
        ("Small-bowel transit", found.small_bowel_s, ""),
        ("Colonic transit", found.colon_s, ""),
    )
    seen = {mark.name for mark in found.marks}
    return Way(
        marks=marks,
        transits=[(name, duration(value), note) for name, value, note in transits if value is not None],
        lacking=[f"{name} ({LANDMARKS[name]})" for name in ("small-bowel", "colon") if name not in seen],
        knows_landmarks=bool(study.model.index_of("landmark")),
        colon_seen="colon" in seen,
        transit_unknown=bool(found.transit_unknown),
        quality=quality_note(study),
        clocks=_clocks(study, found),
    )


def _clocks(study: Study, found: Landmarks) -> str:
    """Return which clock the times are stated by; empty where none is stated."""
    if not found.marks:
        return ""
    if study.source.time_kind == "capture" and study.source.capture_fps is None:
        return "The file keeps the capsule's own timing: exam clock and playback clock are the same."
    return "Times of landmarks are by the playback clock, transit times by the exam clock."


def quality_note(study: Study) -> str:
    """Return on how many frames the view was reduced, or that the model does not look for it."""
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
    """Return a duration as ``4 h 20 min``, ``20 min`` or ``12 s``, to the nearest minute or second; halves go up.

    The page of the workstation follows the same rule (``duration`` in wording.js).
    """
    if seconds < 59.5:
        return f"{int(seconds + 0.5)} s"
    minutes = int(seconds / 60 + 0.5)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"
