"""Recreate the tables of a study from its log alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa

from ..store import BANNER, studies
from .log import LogLine, read_lines
from .projection import MemoryRows, project
from .table_rows import TableRows, projected_rows, remove_projected

__all__ = ["differing_rows", "project_all", "rebuild"]

Tables = dict[str, dict[tuple[str, ...], dict[str, Any]]]
# Rows refer to the reading, which must be there first.
_ORDER = ("studies", "readings", "decisions", "landmarks", "coverage")


def project_all(lines: Iterable[LogLine], study_id: str) -> Tables:
    """Return the rows that the log of a study describes, by table and key.

    Raises:
        KeyError, TypeError, ValueError: a line was not written by this software.
    """
    rows = MemoryRows()
    empty = {"id": study_id, "examination": dict.fromkeys(BANNER, ""), "examination_version": 0}
    rows.put("studies", (study_id,), empty)
    for line in lines:
        project(rows, line)
    return {name: rows.tables.get(name, {}) for name in _ORDER}


def rebuild(connection: sa.Connection, study_id: str) -> None:
    """Recreate readings, decisions, landmarks, coverage and the examination of a study from its log.

    Args:
        connection: of ``Database.writing``.
        study_id: of the study, which is also its chain.

    Raises:
        KeyError, TypeError, ValueError: a line was not written by this software.
    """
    tables = project_all(read_lines(connection, study_id), study_id)
    remove_projected(connection, study_id)
    rows = TableRows(connection)
    for name in _ORDER:
        for key, row in tables[name].items():
            rows.put(name, key, row)


def differing_rows(connection: sa.Connection, lines: Iterable[LogLine], study_id: str) -> list[str]:
    """Return the names of rows that differ from what the log describes, such as ``decisions suggestion:3``.

    Raises:
        KeyError, TypeError, ValueError: a line was not written by this software.
    """
    if connection.execute(sa.select(studies.c.id).where(studies.c.id == study_id)).first() is None:
        return []
    expected, found = project_all(lines, study_id), projected_rows(connection, study_id)
    return [
        f"{name} {'/'.join(map(str, key))}"
        for name in _ORDER
        for key in sorted(expected[name].keys() | found[name].keys(), key=str)
        if expected[name].get(key) != found[name].get(key)
    ]
