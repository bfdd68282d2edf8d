"""Rows of the database's tables, as the projection of the log reads and writes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import sqlalchemy as sa

from ..store import coverage, decisions, landmarks, readings, studies
from .raw_rows import decode_row, raw_columns

__all__ = ["TableRows", "projected_rows", "remove_projected"]

Key = tuple[str, ...]
_TABLES: Mapping[str, sa.Table] = {
    "readings": readings,
    "decisions": decisions,
    "landmarks": landmarks,
    "coverage": coverage,
}
# The columns of a study that come from the log. Its other columns describe the recording.
_EXAMINATION = (studies.c.id, studies.c.examination, studies.c.examination_version)


class TableRows:
    """The tables of a database, within the caller's transaction."""

    def __init__(self, connection: sa.Connection) -> None:
        """Work on ``connection``, which must be one of ``Database.writing`` if rows are put."""
        self._connection = connection

    def get(self, table: str, key: Key) -> dict[str, Any] | None:
        """Return a row, None if there is none."""
        query = (
            sa.select(*_EXAMINATION).where(studies.c.id == key[0])
            if table == "studies"
            else sa.select(_TABLES[table]).where(_has_key(_TABLES[table], key))
        )
        row = self._connection.execute(query).mappings().first()
        return None if row is None else dict(row)

    def put(self, table: str, key: Key, row: dict[str, Any] | None) -> None:
        """Write a row in place of the one with this key; None deletes it."""
        if table == "studies":
            values = {name: value for name, value in (row or {}).items() if name != "id"}
            self._connection.execute(sa.update(studies).where(studies.c.id == key[0]).values(**values))
            return
        found, condition = _TABLES[table], _has_key(_TABLES[table], key)
        if row is None:
            self._connection.execute(sa.delete(found).where(condition))
        elif not self._connection.execute(sa.update(found).where(condition).values(row)).rowcount:
            self._connection.execute(sa.insert(found).values(row))


def _has_key(table: sa.Table, key: Key) -> sa.ColumnElement[bool]:
    columns = table.primary_key.columns
    return sa.and_(*(column == value for column, value in zip(columns, key, strict=True)))


def projected_rows(connection: sa.Connection, study_id: str) -> dict[str, dict[Key, dict[str, Any]]]:
    """Return all rows of a study that come from its log, by table and key."""
    own = sa.select(readings.c.id).where(readings.c.study_id == study_id)
    found: dict[str, dict[Key, dict[str, Any]]] = {}
    for name, table in _TABLES.items():
        column = table.c.id if name == "readings" else table.c.reading_id
        rows = _select(connection, table.c, column.in_(own))
        keys = [column.name for column in table.primary_key.columns]
        found[name] = {tuple(row[key] for key in keys): row for row in rows}
    rows = _select(connection, _EXAMINATION, studies.c.id == study_id)
    found["studies"] = {(row["id"],): row for row in rows}
    return found


def _select(
    connection: sa.Connection, columns: Iterable[sa.Column[Any]], condition: sa.ColumnElement[bool]
) -> list[dict[str, Any]]:
    """Return rows; what should be JSON and is none stays a text, and so differs from what the log says."""
    chosen = list(columns)
    rows = connection.execute(sa.select(*raw_columns(chosen)).where(condition)).mappings()
    return [decode_row(row, chosen) for row in rows]


def remove_projected(connection: sa.Connection, study_id: str) -> None:
    """Delete all rows of a study that come from its log, and empty its examination."""
    own = sa.select(readings.c.id).where(readings.c.study_id == study_id)
    for table in (decisions, landmarks, coverage):
        connection.execute(sa.delete(table).where(table.c.reading_id.in_(own)))
    connection.execute(sa.delete(readings).where(readings.c.study_id == study_id))
