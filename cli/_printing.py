"""Print results on stdout: tables and figures for people, one JSON document for programs."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from ._tables import ColumnTable

if TYPE_CHECKING:
    from rich.console import Console

__all__ = [
    "console",
    "echo_json",
    "interval_cell",
    "macro_f1_change",
    "number",
    "summarise_certificate",
    "table",
]


def console() -> Console:
    """Return the console that results are printed on.

    In a pipe or file it is 200 columns wide: rich assumes 80 there, which would break the tables into parts.
    """
    from rich.console import Console

    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 200
    return Console(soft_wrap=True, markup=False, highlight=False, width=width)


def table(*columns: str, numbers: bool = True) -> ColumnTable:
    """Return an empty table.

    Args:
        columns: the heads of the columns; the first column holds the names of the rows.
        numbers: the other columns hold numbers, aligned to the right, or else text, whose lines may wrap.
    """
    return ColumnTable(columns, numbers=numbers)


def number(value: Any, digits: int = 3) -> str:
    """Return a figure as text for people; an undefined one (None) is a dash."""
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.{digits}f}"


def interval_cell(value: list[float] | None, digits: int = 3) -> str:
    """Return the two ends of an interval as text for people."""
    return "-" if value is None else f"{value[0]:.{digits}f} .. {value[1]:.{digits}f}"


def macro_f1_change(delta: float | None, precision: str = "int8") -> str:
    """Return what conversion did to macro-F1, as "macro-F1 lost by INT8: 0.0013".

    Args:
        delta: macro-F1 of the converted model minus that of its original, or None.
        precision: of the converted model, as its ModelSpec states it.
    """
    verb = "gained" if delta is not None and delta > 0 else "lost"
    return f"macro-F1 {verb} by {precision.upper()}: {number(delta if delta is None else abs(delta), 4)}"


def echo_json(document: Any) -> None:
    """Print one JSON document. A figure that is not finite is a fault of ours: documents have null for it."""
    click.echo(json.dumps(document, ensure_ascii=False, indent=1, allow_nan=False))


def summarise_certificate(certificate: Mapping[str, Any]) -> str:
    """Return a certificate in one line."""
    models, frames, events = certificate["models"], certificate["data"]["frames"], certificate["events"]
    line = (
        f"{certificate['kind']} of {models['b']['file']} against {models['a']['file']}: {certificate['verdict']}, "
        f"agreement {certificate['agreement']:.3%} of {frames:,} frames, "
        f"largest difference of a probability {certificate['max_abs_dp']:.2g}, "
        f"{macro_f1_change(certificate['macro_f1_delta'], models['b']['precision'] or 'int8')}"
    )
    if events:
        line += f", {events['matched']} events of {events['a']} and {events['b']} in common"
    return line
