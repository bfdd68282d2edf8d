"""Export a reading as one JSON document (schema ``capsule-edge/reading/1``), and a log as JSON lines.

The document holds what the reader did and what the model had suggested, so that it can be read without the database.
The report of a reading is made from it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import sqlalchemy as sa

from capsule_edge.runtime import __version__
from capsule_edge.runtime.events import LANDMARKS, locate_time

from ..store import BANNER, log, results, studies
from .log import canonical_json, read_lines
from .progress import reading_document, small_bowel_frames
from .ranges import Ranges, count, intersect, subtract, unite
from .result_facts import ResultFacts

__all__ = ["SCHEMA", "export_log", "export_reading"]

SCHEMA = "capsule-edge/reading/1"
STATUS = "preliminary, not signed"


def export_log(connection: sa.Connection, study_id: str) -> Iterator[str]:
    """Yield the lines of a study's log as JSON, each with its line end: keys in order, UTF-8, no spaces."""
    for line in read_lines(connection, study_id):
        yield canonical_json(line.document()) + "\n"


def export_reading(
    connection: sa.Connection, facts: ResultFacts, reading_id: str, *, names: Mapping[str, str]
) -> dict[str, Any]:
    """Return a reading as a document of its own.

    Args:
        connection: of ``Database.reading``.
        facts: of the reading's result.
        reading_id: of the reading.
        names: of the model's labels by key.

    Raises:
        ReadingNotFoundError: there is no such reading.
    """
    reading = reading_document(connection, facts, reading_id)
    study = connection.execute(sa.select(studies).where(studies.c.id == reading["study_id"])).one()
    result = connection.execute(sa.select(results).where(results.c.id == reading["result_id"])).one()
    lines = connection.execute(
        sa.select(sa.func.count()).select_from(log).where(log.c.chain == reading["study_id"])
    ).scalar_one()
    hidden = reading["suggestions_hidden"]
    return {
        "schema": SCHEMA,
        "tool": {"version": __version__},
        "intended_use": facts.document["intended_use"],
        "status": STATUS,
        "examination": {name: study.examination.get(name, "") for name in BANNER},
        "recording": _recording(study, facts),
        "model": {
            "name": result.model_name,
            "version": result.model_version,
            "sha256": result.model_sha256,
            "precision": result.precision,
            "tool_version": result.tool_version,
            "backend": facts.document["model"]["backend"],
        },
        "reading": {
            "id": reading_id,
            "study_id": study.id,
            "result_id": result.id,
            "readers": reading["readers"],
            **{
                name: reading[name] for name in ("reader", "way", "pass", "state", "opened_at", "finished_at")
            },
            "ways": _ways(connection, study.id, reading_id),
            "seconds": reading["progress"]["seconds"],
        },
        "completeness": _completeness(reading, facts),
        "landmarks": [
            {"name": name, **_at(facts, reading["landmarks"][name]["index"])}
            for name in LANDMARKS
            if name in reading["landmarks"]
        ],
        "transit": reading["transit"],
        "suggestions_hidden": hidden,
        "suggestions": [] if hidden else _suggestions(reading, facts, names),
        "findings": _findings(reading, facts, names),
        "log": {"chain": study.id, "lines": lines, "head": reading["head_hash"]},
    }


def _ways(connection: sa.Connection, study_id: str, reading_id: str) -> list[dict[str, Any]]:
    """Return the ways in which was read, in order, with the number of decisions and findings made in each."""
    ways: list[dict[str, Any]] = []
    target = f"reading:{reading_id}"
    for line in read_lines(connection, study_id):
        if line.target == target and line.action in ("open", "switch_way"):
            ways.append({"way": line.after["way"], "since": line.utc, "decisions": 0})
        elif line.target.startswith(f"{target}/") and line.action in ("decide", "add"):
            ways[-1]["decisions"] += 1
    return ways


def _on_screen(reading: Mapping[str, Any], ranges: Ranges) -> bool:
    """Return whether any of the frames was on the reader's screen."""
    shown = unite([*reading["coverage"]["seen"], *reading["coverage"]["skimmed"]])
    return bool(intersect(unite(ranges), shown))


def _recording(study: sa.Row[Any], facts: ResultFacts) -> dict[str, Any]:
    source = facts.document["source"]
    names = ("width", "height", "codec", "duration_s", "time_kind", "capture_fps")
    return {
        "title": study.title,
        "sha256": source["sha256"],
        "frames": facts.frames,
        **{name: source[name] for name in names},
        "ledger": facts.document["ledger"],
        "warnings": facts.document.get("warnings", []),
    }


def _completeness(reading: Mapping[str, Any], facts: ResultFacts) -> dict[str, Any]:
    """Count the frames that were seen, skimmed and not seen, of those that have a picture."""
    seen, skimmed = (unite(reading["coverage"][name]) for name in ("seen", "skimmed"))
    small_bowel = small_bowel_frames(reading["landmarks"])
    shown = subtract([(0, facts.frames)] if facts.frames else [], facts.no_picture)
    return {
        "whole": _count_frames(shown, seen, skimmed),
        "small_bowel": None
        if small_bowel is None
        else _count_frames(intersect(shown, small_bowel), seen, skimmed),
        "without_picture": count(facts.no_picture),
        "seen": reading["coverage"]["seen"],
        "skimmed": reading["coverage"]["skimmed"],
    }


def _count_frames(shown: Ranges, seen: Ranges, skimmed: Ranges) -> dict[str, Any]:
    total, looked_at, passed = count(shown), count(intersect(shown, seen)), count(intersect(shown, skimmed))
    return {
        "frames": total,
        "seen": looked_at,
        "skimmed": passed,
        "not_seen": total - looked_at - passed,
        "seen_share": looked_at / total if total else None,
    }


def _suggestions(
    reading: Mapping[str, Any], facts: ResultFacts, names: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Return every suggestion of the model with the reader's decision; ``undecided`` where there is none."""
    decided = {decision["target"]: decision for decision in reading["decisions"]}
    scores = {each["id"]: each for each in facts.document.get("suggestions") or ()}
    documents = []
    for number, suggestion in facts.suggestions.items():
        decision = decided.get(f"suggestion:{number}")
        verdict = decision["verdict"] if decision else "undecided"
        key = decision["key_index"] if decision and verdict != "undecided" else suggestion.key_index
        documents.append(
            {
                "id": number,
                **_label(suggestion.label, names),
                "score": scores[number]["score"],
                "precision": scores[number]["precision"],
                "start_index": suggestion.start_index,
                "end_index": suggestion.end_index,
                "ranges": [list(each) for each in suggestion.ranges],
                "on_screen": _on_screen(reading, suggestion.ranges),
                "key": _placed(facts, reading, key),
                "verdict": verdict,
                "decided_label": _label(decision["label"], names) if decision and decision["label"] else None,
                "comment": decision["comment"] if decision else "",
                "reader": decision["reader"] if decision else None,
                "seconds": decision["seconds"] if decision else None,
                "decided_at": decision["decided_at"] if decision else None,
            }
        )
    return documents


def _findings(
    reading: Mapping[str, Any], facts: ResultFacts, names: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Return the findings that the reader added."""
    return [
        {
            "id": decision["target"].partition(":")[2],
            **_label(decision["label"], names),
            "start_index": decision["start_index"],
            "end_index": decision["end_index"],
            "key": _placed(facts, reading, decision["key_index"]),
            "comment": decision["comment"],
            "reader": decision["reader"],
            "seconds": decision["seconds"],
            "decided_at": decision["decided_at"],
        }
        for decision in sorted(reading["decisions"], key=lambda decision: decision["key_index"] or 0)
        if decision["verdict"] == "added"
    ]


def _label(key: str, names: Mapping[str, str]) -> dict[str, str]:
    """Return a label's key and its name; that of the reader's own words is the words."""
    return {"label": key, "name": names.get(key) or key.partition(": ")[2] or key.replace("_", " ")}


def _at(facts: ResultFacts, index: int) -> dict[str, Any]:
    """Return a frame with its playback time, and its time in the examination; None where that is not known."""
    time_s, scale = facts.times_s[index], facts.capture_scale
    known = time_s is not None and scale is not None
    return {
        "index": index,
        "time_s": time_s,
        "exam_time_s": round(time_s * scale, 6) if known else None,  # type: ignore[operator]
    }


def _placed(facts: ResultFacts, reading: Mapping[str, Any], index: int) -> dict[str, Any]:
    """Return a frame with its times, and the segment of the gut as far as the landmarks tell."""
    frame = _at(facts, index)
    at = {name: mark["time_s"] for name, mark in reading["landmarks"].items()}
    segment, share = (None, None) if frame["time_s"] is None else locate_time(frame["time_s"], at)
    return {**frame, "segment": segment, "segment_share": share}
