"""Compute the progress of a reading, and return the whole reading as JSON values."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from ..store import decisions, log, readings
from .coverage import find_coverage
from .decisions import decision_document, find_decisions
from .landmarks import find_landmarks, transit_document
from .log import head_hash
from .ranges import Ranges, count, intersect, subtract, unite
from .recorder import Recorder
from .result_facts import ResultFacts
from .undo_lines import find_undoable

__all__ = ["find_readers", "list_readings", "progress_document", "reading_document", "small_bowel_frames"]


_DECIDED = (decisions.c.target.startswith("suggestion:"), decisions.c.verdict != "undecided")


def list_readings(connection: sa.Connection, study_id: str) -> list[dict[str, Any]]:
    """Return a summary of each reading of a study, the oldest first."""
    names = (
        *("id", "study_id", "result_id", "reader", "way", "pass", "state"),
        *("opened_at", "finished_at", "seconds", "version"),
    )
    query = sa.select(readings).where(readings.c.study_id == study_id)
    rows = connection.execute(query.order_by(readings.c.opened_at, readings.c.id)).mappings()
    decided = (
        sa.select(decisions.c.reading_id, sa.func.count().label("decided"))
        .join(readings, readings.c.id == decisions.c.reading_id)
        .where(readings.c.study_id == study_id, *_DECIDED)
        .group_by(decisions.c.reading_id)
    )
    counts = {row.reading_id: row.decided for row in connection.execute(decided)}
    return [{**{name: row[name] for name in names}, "decided": counts.get(row["id"], 0)} for row in rows]


def reading_document(connection: sa.Connection, facts: ResultFacts, reading_id: str) -> dict[str, Any]:
    """Return a reading with its decisions, landmarks, transit times, coverage and progress.

    Args:
        connection: of ``Database.reading`` or ``Database.writing``.
        facts: of the reading's result.
        reading_id: of the reading.

    Raises:
        ReadingNotFoundError: there is no such reading.
    """
    recorder = Recorder.of(connection, reading_id, for_changes=False)
    reading = recorder.reading
    rows = [row for row in find_decisions(connection, reading_id) if row["verdict"] != "removed"]
    marks = find_landmarks(connection, reading_id)
    undoable = find_undoable(connection, study_id=reading["study_id"], reading_id=reading_id)
    return {
        **{name: reading[name] for name in ("id", "study_id", "result_id", "reader", "way", "pass", "state")},
        "readers": find_readers(connection, study_id=reading["study_id"], reading_id=reading_id),
        "suggestions_hidden": recorder.hides_suggestions,
        "opened_at": reading["opened_at"],
        "finished_at": reading["finished_at"],
        "version": reading["version"],
        "decisions": [decision_document(row) for row in rows],
        "landmarks": marks,
        "transit": transit_document(facts, marks),
        "coverage": find_coverage(connection, reading_id),
        "progress": progress_document(connection, facts, reading_id),
        "undoable": undoable and undoable.sequence,
        "head_hash": head_hash(connection, reading["study_id"]),
    }


def find_readers(connection: sa.Connection, *, study_id: str, reading_id: str) -> list[str]:
    """Return the names of all who acted in a reading, in the order of their first line in the log."""
    own = sa.or_(
        log.c.target == f"reading:{reading_id}",
        log.c.target.startswith(f"reading:{reading_id}/", autoescape=True),
    )
    query = sa.select(log.c.reader).where(log.c.chain == study_id, own).group_by(log.c.reader)
    return list(connection.execute(query.order_by(sa.func.min(log.c.sequence))).scalars())


def progress_document(connection: sa.Connection, facts: ResultFacts, reading_id: str) -> dict[str, Any]:
    """Return how far a reading has come.

    Returns:
        ``suggestions`` (their number; None while they are hidden), ``decided`` (of these), ``seen_share`` and
        ``skimmed_share`` (of the frames with a picture, 0..1), ``seen_share_small_bowel`` (None unless both of its
        landmarks are set), ``seconds`` of active reading, and the ``version`` of the reading.

    Raises:
        ReadingNotFoundError: there is no such reading.
    """
    recorder = Recorder.of(connection, reading_id, for_changes=False)
    known = find_coverage(connection, reading_id)
    seen, skimmed = unite(known["seen"]), unite(known["skimmed"])
    shown = subtract([(0, facts.frames)] if facts.frames else [], facts.no_picture)
    small_bowel = small_bowel_frames(find_landmarks(connection, reading_id))
    part = None if small_bowel is None else intersect(shown, small_bowel)
    decided = connection.execute(
        sa.select(sa.func.count())
        .select_from(decisions)
        .where(decisions.c.reading_id == reading_id, *_DECIDED)
    ).scalar_one()
    return {
        "suggestions": None if recorder.hides_suggestions else len(facts.suggestions),
        "decided": decided,
        "seen_share": _share(seen, shown),
        "skimmed_share": _share(skimmed, shown),
        "seen_share_small_bowel": None if part is None else _share(seen, part),
        "seconds": recorder.reading["seconds"],
        "version": recorder.reading["version"],
    }


def small_bowel_frames(marks: dict[str, dict[str, Any]]) -> Ranges | None:
    """Return the frames between the landmarks of small bowel and colon; None unless both are set.

    Args:
        marks: from ``find_landmarks``.
    """
    if not {"small-bowel", "colon"} <= marks.keys():
        return None
    return unite([(marks["small-bowel"]["index"], marks["colon"]["index"])])


def _share(seen: Ranges, whole: Ranges) -> float | None:
    frames = count(whole)
    return count(intersect(seen, whole)) / frames if frames else None
