"""The words of the report: times, shares and the origin of a finding, as a physician reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from capsule_edge.runtime.recording import clock
from capsule_edge.runtime.report import SEGMENTS, duration

__all__ = [
    "WAYS",
    "banner_line",
    "clocks",
    "completeness_rows",
    "examination_rows",
    "frames_text",
    "ledger_sentences",
    "origin",
    "precision_sentence",
    "score_text",
    "short",
    "spent",
    "transit_rows",
    "way_rows",
    "when",
    "where",
]

WAYS = {
    "suggestions_first": "suggestions first, then the recording",
    "everything": "the whole recording, with the suggestions marked",
    "hidden_first": "a first pass with the suggestions hidden, then the suggestions",
}
_NOT_ENTERED = "not entered"
_BANNER_NAME = 40


def short(text: str, most: int = 60) -> str:
    """Return a text, cut with an ellipsis where it is longer than ``most`` characters."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def when(text: str | None) -> str:
    """Return a UTC time as date and minute."""
    return "" if text is None else f"{text[:10]} {text[11:16]} UTC"


def banner_line(examination: Mapping[str, str]) -> list[str]:
    """Return the parts of the line that stands on top of every printed page."""
    name, born, number = (examination[key] for key in ("patient_name", "birth_date", "accession_number"))
    return [
        short(name, _BANNER_NAME) or "Patient not entered",
        f"born {born}" if born else "birth date not entered",
        f"accession {short(number, _BANNER_NAME)}" if number else "accession number not entered",
    ]


def examination_rows(examination: Mapping[str, str]) -> list[tuple[str, str, bool]]:
    """Return (name, text, whether it was entered) of the fields of the banner."""
    fields = (
        ("Patient", "patient_name"),
        ("Patient ID", "patient_id"),
        ("Birth date", "birth_date"),
        ("Accession number", "accession_number"),
        ("Procedure date", "procedure_date"),
    )
    return [(name, examination[key] or _NOT_ENTERED, bool(examination[key])) for name, key in fields]


def clocks(frame: Mapping[str, Any]) -> dict[str, str]:
    """Return the index of a frame and its time by both clocks."""
    time_s, exam_s = frame["time_s"], frame["exam_time_s"]
    return {
        "index": f"{frame['index']:,}",
        "exam": "not known" if exam_s is None else clock(exam_s),
        "playback": "none" if time_s is None else clock(time_s, tenths=True),
    }


def where(key: Mapping[str, Any]) -> str:
    """Return the segment of the gut, with the share of its transit; empty where the landmarks do not tell."""
    if key["segment"] is None:
        return ""
    share = "" if key["segment_share"] is None else f", {100 * key['segment_share']:.0f} % of its transit"
    return f"{SEGMENTS[key['segment']]}{share}"


def origin(each: Mapping[str, Any]) -> str:
    """Return who found a finding, and what the model had said."""
    if "verdict" not in each:
        return "Added by the reader; not a suggestion of the model"
    unseen = "" if each["on_screen"] else ". None of its pictures was on the screen"
    if each["verdict"] == "relabelled":
        return (
            f"Suggestion {each['id']}, relabelled by the reader; the model had said: {each['name']}{unseen}"
        )
    return f"Suggestion {each['id']} of the model, confirmed by the reader{unseen}"


def score_text(each: Mapping[str, Any]) -> str:
    """Return the score of a suggestion and how often such suggestions were right; empty for the reader's own."""
    if "score" not in each:
        return ""
    measured = each["precision"]
    # The score is of what the model had said.
    of = f" for {each['name']}" if each["verdict"] == "relabelled" else ""
    if measured is None:
        return f"{each['score']:.2f}{of}; how often suggestions with such a score are right was not measured"
    return (
        f"{each['score']:.2f}{of}; of suggestions with such a score, whatever the finding, "
        f"{100 * measured['estimate']:.0f} % were right "
        f"({100 * measured['low']:.0f} to {100 * measured['high']:.0f} %, n = {measured['n']:,})"
    )


def frames_text(each: Mapping[str, Any]) -> str:
    """Return the frames of a finding and their number; empty for a single frame."""
    ranges = each.get("ranges") or [(each["start_index"], each["end_index"])]
    number = sum(end - start for start, end in ranges)
    parts = [f"{start:,}" if end - start == 1 else f"{start:,} to {end - 1:,}" for start, end in ranges]
    return "" if number == 1 else f"{', '.join(parts)} ({number:,})"


def way_rows(reading: Mapping[str, Any]) -> list[str]:
    """Return the ways in which was read, with the decisions made in each where there were several."""
    ways = reading["ways"]
    if len(ways) == 1:
        return [WAYS[ways[0]["way"]]]
    return [
        f"{WAYS[each['way']]}: {each['decisions']} {'decision' if each['decisions'] == 1 else 'decisions'},"
        f" from {when(each['since'])}"
        for each in ways
    ]


def precision_sentence(suggestions: Sequence[Mapping[str, Any]]) -> str:
    """Return on what the precision of suggestions was measured; empty where it was not."""
    measured = {each["precision"]["measured_on"] for each in suggestions if each["precision"]}
    return "; ".join(sorted(measured))


def completeness_rows(completeness: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return (part of the gut, what was seen of it)."""
    rows = [("Whole recording", _looked_at(completeness["whole"]))]
    if completeness["small_bowel"] is None:
        rows.append(("Small bowel", "not known: its first and last frame were not both marked"))
    else:
        rows.append(("Small bowel", _looked_at(completeness["small_bowel"])))
    return rows


def _looked_at(counts: Mapping[str, Any]) -> str:
    total = counts["frames"]
    if not total:
        return "no frame with a picture"
    seen, skimmed, unseen = counts["seen"], counts["skimmed"], counts["not_seen"]
    # What was seen is rounded down, as on the page, and what is left makes up the rest.
    left = 100 - 100 * seen // total - 100 * skimmed // total
    rest = "0 %" if not unseen else "more than 99 %" if left == 100 and unseen < total else f"{left} %"
    return (
        f"of {total:,} frames {seen:,} seen ({_percent(seen, total)}), {skimmed:,} skimmed"
        f" ({_percent(skimmed, total)}), {unseen:,} not seen ({rest})"
    )


def _percent(part: int, whole: int) -> str:
    """Return a share, rounded down; 0 % only where it is none."""
    return "less than 1 %" if 0 < 100 * part < whole else f"{100 * part // whole} %"


def ledger_sentences(recording: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with the frames of the recording; one sentence where nothing is."""
    ledger = recording["ledger"]
    meanings = (
        ("corrupt", "corrupt: damaged, or dependent on a damaged frame"),
        ("missing", "missing: announced by the file, not in it"),
        ("unread", "not read by the model, because it was stopped"),
        ("skipped", "left out by the options of the run"),
    )
    found = [
        f"{ledger[name]:,} of {ledger['container']:,} frames {text}."
        for name, text in meanings
        if ledger[name]
    ]
    if ledger["truncated"]:
        found.append("The file ends before its announced end.")
    return found or [f"No frame of {ledger['container']:,} is missing or reported as damaged."]


def transit_rows(transit: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return (name, duration) of the transit times that are known."""
    since = ", counted from the start of the recording" if transit["gastric_from"] == "recording" else ""
    times = (
        ("Gastric transit", transit["gastric_s"], since),
        ("Small-bowel transit", transit["small_bowel_s"], ""),
        ("Colonic transit", transit["colon_s"], ""),
    )
    return [(name, f"{duration(value)}{note}") for name, value, note in times if value is not None]


def spent(seconds: float) -> str:
    """Return the time of active reading."""
    return "not measured" if not seconds else duration(seconds)
