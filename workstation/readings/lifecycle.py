"""Open, finish and reopen readings, and choose the way to read."""

from __future__ import annotations

import sqlalchemy as sa

from ..store import new_id, results
from .entries import check_choice, check_text
from .log import append_line
from .projection import project
from .reading_errors import ReadingConflictError, ReadingNotFoundError
from .recorder import Recorder, find_recording_sha256
from .table_rows import TableRows

__all__ = ["WAYS", "finish", "open_reading", "reopen", "second_pass", "switch_way"]

WAYS = {
    "suggestions_first": "the suggestions first, then the recording",
    "everything": "the whole recording, with the suggestions marked",
    "hidden_first": "the whole recording with the suggestions hidden, then the suggestions",
}
"""The ways to read and their meaning."""


def open_reading(
    connection: sa.Connection, *, study_id: str, reader: str, way: str, result_id: str | None = None
) -> str:
    """Open a reading and return its id.

    Args:
        connection: of ``Database.writing``.
        study_id: of the study.
        reader: name of the reader, as it was typed in.
        way: one of ``WAYS``.
        result_id: of the result whose suggestions are shown; None takes the newest.

    Raises:
        ReadingNotFoundError: there is no such study or result.
        ReadingConflictError: the recording was not read yet.
        ReadingValueError: the name or the way is not allowed.
    """
    reader = check_text(reader, name="the reader's name", empty=False)
    way = check_choice(way, name="the way to read", allowed=WAYS)
    study_sha256 = find_recording_sha256(connection, study_id)
    chosen, model_sha256 = _find_result(connection, study_id, result_id)
    reading_id = new_id()
    line = append_line(
        connection,
        chain=study_id,
        reader=reader,
        target=f"reading:{reading_id}",
        action="open",
        # Suggestions that are visible from the start cannot be hidden in a first pass later.
        after={"result_id": chosen, "way": way, "pass": "first" if way == "hidden_first" else "second"},
        study_sha256=study_sha256,
        model_sha256=model_sha256,
    )
    project(TableRows(connection), line)
    return reading_id


def _find_result(connection: sa.Connection, study_id: str, result_id: str | None) -> tuple[str, str]:
    """Return the id of a result of a study and the SHA-256 of its model."""
    query = sa.select(results.c.id, results.c.model_sha256).where(results.c.study_id == study_id)
    if result_id is not None:
        query = query.where(results.c.id == result_id)
    order = (results.c.created_at.desc(), results.c.id.desc())
    found = connection.execute(query.order_by(*order).limit(1)).first()
    if found is not None:
        return found.id, found.model_sha256
    if result_id is not None:
        raise ReadingNotFoundError(
            "the study has no result of this id", hint="leave it out to take the newest"
        )
    raise ReadingConflictError(
        "no model has read this recording yet", hint="wait until its job is done, or retry the job"
    )


def switch_way(connection: sa.Connection, reading_id: str, *, way: str, reader: str | None = None) -> None:
    """Choose another way to read. Suggestions that were visible once count as seen from then on.

    Raises:
        ReadingNotFoundError: there is no such reading.
        ReadingConflictError: it is finished.
        ReadingValueError: the way is not allowed.
    """
    way = check_choice(way, name="the way to read", allowed=WAYS)
    recorder = Recorder.of(connection, reading_id, reader=reader)
    before = {name: recorder.reading[name] for name in ("way", "pass")}
    if before["way"] == way:
        return
    # Every other way shows the suggestions, before this change or after it.
    recorder.record("switch_way", before=before, after={"way": way, "pass": "second"})


def second_pass(connection: sa.Connection, reading_id: str, *, reader: str | None = None) -> None:
    """End the first pass: from now on the suggestions are shown.

    Raises:
        ReadingNotFoundError: there is no such reading.
        ReadingConflictError: it is finished.
    """
    recorder = Recorder.of(connection, reading_id, reader=reader)
    if recorder.reading["pass"] == "first":
        recorder.record("second_pass", before={"pass": "first"}, after={"pass": "second"})


def finish(connection: sa.Connection, reading_id: str, *, reader: str | None = None) -> None:
    """Finish a reading. It can be reopened.

    Raises:
        ReadingNotFoundError: there is no such reading.
    """
    recorder = Recorder.of(connection, reading_id, reader=reader, for_changes=False)
    if recorder.reading["state"] == "open":
        recorder.record("finish", before={"state": "open"}, after={"state": "finished"})


def reopen(connection: sa.Connection, reading_id: str, *, reader: str | None = None) -> None:
    """Open a finished reading again. A finished reading shows the suggestions, so its first pass is over.

    Raises:
        ReadingNotFoundError: there is no such reading.
    """
    recorder = Recorder.of(connection, reading_id, reader=reader, for_changes=False)
    if recorder.reading["state"] == "finished":
        recorder.record("reopen", before={"state": "finished"}, after={"state": "open"})
        second_pass(connection, reading_id, reader=reader)
