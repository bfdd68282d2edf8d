"""Read a list of recordings: CSV or Parquet with the columns ``path, site, capsule_type, patient, date``.

Only ``path`` is needed. An absent value is null. A relative path is relative to the list. A row that is wrong does not
stop the others: it becomes a recording that is named by its row and has a ``fault``.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping
from datetime import date, datetime
from pathlib import Path
from typing import Any

from capsule_edge.runtime.errors import InputError

from ..packages import load_package
from .addresses import has_password, hide_password, is_address, public_address
from .recording import Recording
from .remote import absolute_path

__all__ = ["LIST_SUFFIXES", "read_list"]

LIST_SUFFIXES = (".csv", ".parquet")
_FACTS = ("site", "capsule_type", "patient", "date")
# A year, a month or a day, as ISO 8601 writes them.
_DATE = re.compile(r"\d{4}(-\d{2}(-\d{2})?)?")


def read_list(path: Path) -> Iterator[Recording]:
    """Yield the recordings of a list, in its order.

    Args:
        path: a CSV file with a head line (UTF-8), or a Parquet file.

    Raises:
        InputError: the file cannot be read, or has no column ``path``.
    """
    listed: dict[str, int] = {}
    for number, row in enumerate(_rows(path), start=1):
        values = {name: _text(row.get(name)) for name in ("path", *_FACTS)}
        place = f"row {number}"
        fault = _fault(values) or ("it has more cells than the head line" if None in row else "")
        if values["path"] is not None and not fault:
            recording = Recording(
                _locate(values["path"], path.parent),
                values["site"],
                values["capsule_type"],
                values["patient"],
                values["date"],
            )
            first = listed.setdefault(recording.location, number)
            if first == number:
                yield recording
                continue
            fault = f"its path is that of row {first}"
        named = f": {public_address(hide_password(values['path']))}" if values["path"] else ""
        # The whole path of the list: two lists of one name have each a row 1.
        yield Recording(f"{absolute_path(path)}, {place}{named}", fault=f"{path.name}, {place}: {fault}")


def _rows(path: Path) -> Iterator[Mapping[Any, Any]]:
    try:
        if path.suffix.lower() == ".parquet":
            parquet = load_package("pyarrow.parquet", needed_for=f"the list {path}")
            file = parquet.ParquetFile(path)
            _check_columns(path, file.schema_arrow.names)
            columns = [name for name in ("path", *_FACTS) if name in file.schema_arrow.names]
            for batch in file.iter_batches(columns=columns):
                yield from batch.to_pylist()
            return
        with path.open(encoding="utf-8-sig", newline="") as text:
            reader = csv.DictReader(text)
            _check_columns(path, reader.fieldnames or [])
            yield from reader
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(
            f"the list {path} cannot be read: {error}", hint="it has to be CSV (UTF-8) or Parquet"
        ) from error


def _check_columns(path: Path, names: Any) -> None:
    if "path" not in names:
        raise InputError(
            f"the list {path} has the columns {', '.join(map(str, names)) or 'of an empty file'}, needed is path",
            hint=f"allowed beside it are {', '.join(_FACTS)}",
        )


def _text(value: Any) -> str | None:
    if value is None or (isinstance(value, float) and value != value):
        return None
    if isinstance(value, datetime):
        value = value.date()
    text = value.isoformat() if isinstance(value, date) else str(value)
    return text.strip() or None


def _fault(values: Mapping[str, str | None]) -> str:
    if values["path"] is None:
        return "it has no path"
    if "\0" in values["path"]:
        return "its path holds a zero byte"
    if has_password(values["path"]):
        return "its address holds a password, which would stand in the results"
    when = values["date"]
    if when is not None and not _is_date(when):
        return f"its date is {when!r}, allowed is a date such as 2026-11-30, 2026-11 or 2026"
    return ""


def _is_date(text: str) -> bool:
    if not _DATE.fullmatch(text):
        return False
    try:
        date.fromisoformat(text + "-01-01"[: 10 - len(text)] if len(text) == 4 else f"{text}-01"[:10])
    except ValueError:
        return False
    return True


def _locate(path: str, folder: Path) -> str:
    return path if is_address(path) else str(absolute_path(folder / path))
