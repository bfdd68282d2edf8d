"""Turn lines of the log into rows of the tables: the one place that says what a line changes.

An action appends its line and projects it onto the tables in the same transaction. ``rebuild`` projects all lines
again, and ``verify`` compares the outcome with the tables. A row's ``version`` is the sequence of the line that made
it, so it grows with each change and leads back to the line.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from .log import LogLine
from .ranges import as_lists, subtract, unite

__all__ = ["DECISION_FIELDS", "EXAMINATION_TARGET", "MemoryRows", "Rows", "project", "split_target"]

Key = tuple[str, ...]
Row = dict[str, Any]

EXAMINATION_TARGET = "examination"
DECISION_FIELDS = ("verdict", "label", "start_index", "end_index", "key_index", "comment")
"""The fields of a decision in ``before`` and ``after`` of its line."""


class Rows(Protocol):
    """The rows that the log is projected onto."""

    def get(self, table: str, key: Key) -> Row | None:
        """Return a row with all of its columns, None if there is none."""
        ...

    def put(self, table: str, key: Key, row: Row | None) -> None:
        """Write a row in place of the one with this key; None deletes it."""
        ...


class MemoryRows:
    """Rows in memory, to rebuild the tables or to compare them.

    Attributes:
        tables: rows by table and key.
    """

    def __init__(self) -> None:
        """Begin without rows."""
        self.tables: dict[str, dict[Key, Row]] = {}

    def get(self, table: str, key: Key) -> Row | None:
        """Return a row, None if there is none."""
        return self.tables.get(table, {}).get(key)

    def put(self, table: str, key: Key, row: Row | None) -> None:
        """Write a row; None deletes it."""
        if row is None:
            self.tables.get(table, {}).pop(key, None)
        else:
            self.tables.setdefault(table, {})[key] = row


def split_target(target: str) -> tuple[str, str]:
    """Return the id of the reading in a target and the part after it; two empty texts for another target.

    Example:
        ``split_target("reading:1f/suggestion:3")`` is ``("1f", "suggestion:3")``.
    """
    head, _, part = target.partition("/")
    kind, _, reading_id = head.partition(":")
    return (reading_id, part) if kind == "reading" else ("", "")


def project(rows: Rows, line: LogLine) -> None:
    """Change the rows as a line of the log says. A line of another subject changes nothing.

    Args:
        rows: the tables, or rows in memory.
        line: of the chain of a study.

    Raises:
        KeyError, TypeError, ValueError: the line was not written by this software.
    """
    if line.action == "examine":
        _examine(rows, line)
    elif change := _CHANGES.get(line.action):
        reading_id, part = split_target(line.target)
        change(rows, line, reading_id, part)
        reading = rows.get("readings", (reading_id,))
        if reading is None:
            raise ValueError(f"line {line.sequence} is about a reading that was never opened")
        rows.put("readings", (reading_id,), {**reading, "version": line.sequence})


def _examine(rows: Rows, line: LogLine) -> None:
    found = rows.get("studies", (line.chain,)) or {"id": line.chain, "examination": {}}
    examination = {**found["examination"], **line.after}
    changed = {**found, "examination": examination, "examination_version": line.sequence}
    rows.put("studies", (line.chain,), changed)


def _open(rows: Rows, line: LogLine, reading_id: str, _: str) -> None:
    row = {
        "id": reading_id,
        "study_id": line.chain,
        "result_id": line.after["result_id"],
        "reader": line.reader,
        "way": line.after["way"],
        "pass": line.after["pass"],
        "state": "open",
        "opened_at": line.utc,
        "finished_at": None,
        "seconds": 0.0,
        "version": line.sequence,
    }
    rows.put("readings", (reading_id,), row)
    rows.put("coverage", (reading_id,), {"reading_id": reading_id, "seen": [], "skimmed": []})


def _change_reading(rows: Rows, line: LogLine, reading_id: str, _: str) -> None:
    reading = rows.get("readings", (reading_id,)) or {}
    changed = {**reading, **{name: line.after[name] for name in ("way", "pass") if name in line.after}}
    rows.put("readings", (reading_id,), changed)


def _finish(rows: Rows, line: LogLine, reading_id: str, _: str) -> None:
    reading = rows.get("readings", (reading_id,)) or {}
    state = line.after["state"]
    finished_at = line.utc if state == "finished" else None
    rows.put("readings", (reading_id,), {**reading, "state": state, "finished_at": finished_at})


def _see(rows: Rows, line: LogLine, reading_id: str, _: str) -> None:
    reading = rows.get("readings", (reading_id,)) or {}
    rows.put("readings", (reading_id,), {**reading, "seconds": reading["seconds"] + (line.seconds or 0.0)})
    found = rows.get("coverage", (reading_id,)) or {"seen": [], "skimmed": []}
    seen = unite(found["seen"], line.after["seen"])
    # A frame that was seen after all is no longer one that was merely skimmed.
    skimmed = subtract(unite(found["skimmed"], line.after["skimmed"]), seen)
    row = {"reading_id": reading_id, "seen": as_lists(seen), "skimmed": as_lists(skimmed)}
    rows.put("coverage", (reading_id,), row)


def _decide(rows: Rows, line: LogLine, reading_id: str, part: str) -> None:
    _put_decision(rows, line, reading_id, part, line.after)


def _mark(rows: Rows, line: LogLine, reading_id: str, part: str) -> None:
    _put_landmark(rows, line, reading_id, part, line.after)


def _undo(rows: Rows, line: LogLine, reading_id: str, part: str) -> None:
    put = _put_landmark if part.startswith("landmark:") else _put_decision
    put(rows, line, reading_id, part, line.after["state"])


def _put_decision(rows: Rows, line: LogLine, reading_id: str, part: str, state: Mapping[str, Any]) -> None:
    row = {
        "reading_id": reading_id,
        "target": part,
        **{name: state[name] for name in DECISION_FIELDS},
        "seconds": line.seconds,
        "decided_at": line.utc,
        "version": line.sequence,
    }
    rows.put("decisions", (reading_id, part), row)


def _put_landmark(
    rows: Rows, line: LogLine, reading_id: str, part: str, state: Mapping[str, Any] | None
) -> None:
    name = part.partition(":")[2]
    row = None
    if state is not None:
        row = {
            "reading_id": reading_id,
            "name": name,
            "frame_index": state["index"],
            "time_s": state["time_s"],
            "version": line.sequence,
        }
    rows.put("landmarks", (reading_id, name), row)


_CHANGES: Mapping[str, Callable[[Rows, LogLine, str, str], None]] = {
    "open": _open,
    "switch_way": _change_reading,
    "second_pass": _change_reading,
    "finish": _finish,
    "reopen": _finish,
    "see": _see,
    "decide": _decide,
    "add": _decide,
    "landmark": _mark,
    "remove_landmark": _mark,
    "undo": _undo,
}
