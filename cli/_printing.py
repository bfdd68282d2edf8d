"""Results on stdout: tables and figures for people, one JSON document for programs."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

import click

from ._tables import PartedTable

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["console", "echo_json", "interval_cell", "number", "table"]


def console() -> Console:
    """Where results go; in a pipe or file no table is squeezed into the 80 columns that are assumed there."""
    from rich.console import Console

    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 200
    return Console(soft_wrap=True, markup=False, highlight=False, width=width)


def table(*columns: str, numbers: bool = True) -> PartedTable:
    """An empty table; the first column holds names, the others ``numbers``, flush right, or text that may be folded."""
    return PartedTable(columns, numbers=numbers)


def number(value: Any, digits: int = 3) -> str:
    """A figure for people; what is undefined is a dash."""
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.{digits}f}"


def interval_cell(value: list[float] | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value[0]:.{digits}f} .. {value[1]:.{digits}f}"


def echo_json(document: Any) -> None:
    """What is not finite is an error of ours: the document has null for it."""
    click.echo(json.dumps(document, ensure_ascii=False, indent=1, allow_nan=False))
