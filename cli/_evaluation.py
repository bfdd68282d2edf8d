"""What ``evaluate`` and ``compare`` share: finding the data, progress on stderr, cells of a table."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from capsule_edge.runtime.errors import UsageError

__all__ = ["data_folder", "interval_cell", "number", "progress"]

_VARIABLE = "CAPSULE_EDGE_DATA"


def data_folder(given: Path | None) -> Path:
    """``--data``, else ``capsule-vision`` below ``CAPSULE_EDGE_DATA``. Raises ``UsageError`` for neither."""
    if given is not None:
        return given
    root = os.environ.get(_VARIABLE)
    if not root:
        raise UsageError("no data set was given", hint=f"use --data DIR or set {_VARIABLE}")
    return Path(root) / "capsule-vision"


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[int], None] | None]:
    """A bar on stderr where that is a terminal; yields what to call with frames done, or None."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.advance(task, done)


def number(value: Any, digits: int = 3) -> str:
    """A figure for people; what is undefined is a dash."""
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.{digits}f}"


def interval_cell(value: list[float] | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value[0]:.{digits}f} .. {value[1]:.{digits}f}"
