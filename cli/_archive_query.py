"""``archive query``: run SQL over the tables of an archive and print the rows."""

from __future__ import annotations

import math
from typing import Any

from ._printing import console, echo_json, number, table

__all__ = ["show_query"]


def show_query(archive: str, sql: str, *, as_json: bool) -> int:
    """Print the answer to a query and return the exit code."""
    from capsule_edge.archive.tables import run_query

    found = run_query(archive, sql)
    if as_json:
        rows = [[_plain(value) for value in row] for row in found.rows]
        echo_json({"columns": list(found.columns), "rows": rows})
        return 0
    if found.columns:
        shown = table(
            *found.columns, numbers=all(_is_number(value) for row in found.rows for value in row[1:])
        )
        for row in found.rows:
            shown.add_row(*map(_cell, row))
        console().print(shown)
    console().print(f"{number(len(found.rows))} rows")
    return 0


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _plain(value: Any) -> Any:
    """Return a value of DuckDB as JSON has it: dates and other kinds as text."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        return {str(name): _plain(each) for name, each in value.items()}
    return str(value)
