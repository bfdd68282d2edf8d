"""Read rows whose JSON may be damaged: SQLAlchemy would stop at the first text that is no JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa

__all__ = ["decode_row", "raw_columns"]


def raw_columns(columns: Iterable[sa.Column[Any]]) -> list[sa.ColumnElement[Any]]:
    """Return columns to select, those of JSON as the text that the database holds."""
    return [
        sa.type_coerce(column, sa.types.NULLTYPE).label(column.name)
        if isinstance(column.type, sa.JSON)
        else column
        for column in columns
    ]


def decode_row(row: sa.RowMapping, columns: Iterable[sa.Column[Any]]) -> dict[str, Any]:
    """Return a row that was selected with ``raw_columns``, its JSON decoded. What is no JSON stays as it is."""
    names = {column.name for column in columns if isinstance(column.type, sa.JSON)}
    return {name: _decode(value) if name in names else value for name, value in dict(row).items()}


def _decode(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value
