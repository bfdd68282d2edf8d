"""Undo the last action that can be undone. Undoing is an action of its own, with a line that names the undone one."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from ..store import log
from .projection import DECISION_FIELDS, split_target
from .reading_errors import ReadingConflictError
from .recorder import Recorder

__all__ = ["find_undoable", "undo"]

_UNDOABLE = ("decide", "add", "landmark", "remove_landmark")
_NOTHING_DECIDED: dict[str, Any] = {**dict.fromkeys(DECISION_FIELDS), "verdict": "undecided", "comment": ""}


def find_undoable(connection: sa.Connection, *, study_id: str, reading_id: str) -> sa.Row[Any] | None:
    """Return the line that ``undo`` would undo: the last of this reading that was not undone; None without one."""
    query = (
        sa.select(log)
        .where(log.c.chain == study_id)
        .where(log.c.action.in_((*_UNDOABLE, "undo")))
        .where(log.c.target.startswith(f"reading:{reading_id}/", autoescape=True))
        .order_by(log.c.sequence.desc())
    )
    undone = set()
    for line in connection.execute(query):
        if line.action == "undo":
            undone.add(line.after["undoes"])
        elif line.sequence not in undone:
            return line
    return None


def undo(
    connection: sa.Connection, reading_id: str, *, sequence: int | None = None, reader: str | None = None
) -> dict[str, Any]:
    """Undo the last action of a reading that was not undone: a decision, a finding or a landmark.

    Args:
        connection: of ``Database.writing``.
        reading_id: of the reading.
        sequence: of the line that the caller means to undo, so that a repeated request undoes no second one; None
            undoes the last.
        reader: name of the person who undoes it; None for the one who opened the reading.

    Returns:
        ``undone`` (sequence of the undone line), its ``action``, the ``target`` without the reading, and the ``state``
        of the target now, None where a landmark is no longer set.

    Raises:
        ReadingNotFoundError: there is no such reading.
        ReadingConflictError: nothing can be undone, the last action is another, or the reading is finished.
    """
    recorder = Recorder.of(connection, reading_id, reader=reader)
    line = find_undoable(connection, study_id=recorder.reading["study_id"], reading_id=reading_id)
    if line is None:
        raise ReadingConflictError("nothing can be undone in this reading", current={"undoable": None})
    if sequence not in (None, line.sequence):
        raise ReadingConflictError(
            f"the last action is that of line {line.sequence}, not of line {sequence}",
            hint="look at the reading as it is now",
            current={"undoable": line.sequence},
        )
    part = split_target(line.target)[1]
    state = line.before
    if line.action == "add":
        state = {**line.after, "verdict": "removed"}
    elif line.action == "decide" and state is None:
        state = _NOTHING_DECIDED
    recorder.record("undo", part=part, before=line.after, after={"undoes": line.sequence, "state": state})
    return {"undone": line.sequence, "action": line.action, "target": part, "state": state}
