"""Read the rows of label tables as spreadsheets and programs write them: one reader for every table of a data set.

Read: UTF-8 and UTF-16 with a byte-order mark; commas, semicolons, tabs or bars between the cells; a first line
``sep=;`` (Excel); column names in any case; blank rows; columns without a name (the row numbers of pandas).
Refused with the line's number: rows with more or fewer cells than the header, quotation marks that never end, other
encodings.
"""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from capsule_edge.runtime.errors import InputError

__all__ = ["MISSING_WORDS", "is_missing", "read_rows"]

MISSING_WORDS = frozenset({"nan", "none", "null", "na", "n/a", "#n/a", "<na>", "nil", "undefined"})
"""The words that programs write into a cell without a value, in lower case."""

# The mark of UTF-32 begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_DELIMITERS = ",;\t|"


def is_missing(text: str) -> bool:
    """Return whether a cell has no value: it is empty, or a word such as ``nan``, ``None`` or ``NULL``."""
    return not text.strip() or text.strip().lower() in MISSING_WORDS


def read_rows(
    table: Path, needed: Sequence[str], *, hint: str = "", short_rows: bool = False
) -> Iterator[tuple[int, dict[str, str]]]:
    """Read a table of cells, in any of the forms that the module names.

    Args:
        table: The file.
        needed: Columns that it must have.
        hint: The error's hint if a column is missing.
        short_rows: Take cells that a row lacks at its end as empty. The published metadata.csv has such rows.

    Yields:
        The line number and the cells of each row by column, stripped of white space. Names of columns are in lower
        case. Blank rows are passed over.

    Raises:
        InputError: The file cannot be read, lacks a column, or has a row that does not fit its header.
    """
    text, skipped, delimiter = _announced(_decoded(table))
    delimiter = delimiter or _delimiter(text, needed)
    rows = csv.reader(io.StringIO(text), delimiter=delimiter, strict=True)
    columns: list[str] = []
    while True:
        line = rows.line_num + 1 + skipped
        try:
            cells = [cell.strip() for cell in next(rows)]
        except StopIteration:
            break
        except csv.Error as error:
            raise InputError(
                f"{table} line {line} is not CSV: {error}", hint="look for a quotation mark without its twin"
            ) from None
        if not any(cells):
            continue
        if columns:
            if short_rows:
                cells += [""] * (len(columns) - len(cells))
            _check_width(table, line, cells, columns, delimiter)
            yield line, {name: cell for name, cell in zip(columns, cells, strict=False) if name}
        else:
            columns = [cell.lower() for cell in cells]
            _check_columns(table, line, columns, needed, hint)
    if not columns:
        _check_columns(table, 1, columns, needed, hint)


def _decoded(table: Path) -> str:
    try:
        data = table.read_bytes()
    except OSError as error:
        raise InputError(f"{table} cannot be read: {error.strerror or error}") from None
    mark, encoding = next(((m, name) for m, name in _MARKS if data.startswith(m)), (b"", "utf-8"))
    if not mark and b"\0" in data[:1000]:
        raise InputError(
            f"{table} holds zero bytes, as UTF-16 without a byte-order mark does", hint="save it as CSV UTF-8"
        )
    data = data[len(mark) :]
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data[: error.start].decode(encoding, "replace").count("\n") + 1
        raise InputError(
            f"{table} line {line} is not {encoding.upper()} (byte {error.start})", hint="save it as CSV UTF-8"
        ) from None
    # Any line end becomes one "\n", also in a quoted cell.
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _announced(text: str) -> tuple[str, int, str]:
    """Take a first line ``sep=;`` off a text. Return the rest, the number of lines taken, and the delimiter or ""."""
    first, end, rest = text.partition("\n")
    said = first.strip(" \"'")
    if said[:4].lower() == "sep=" and len(said) == 5:
        return rest, len(end), said[4]
    # A tab as the delimiter is stripped by nothing above, but some programs write the word.
    if said.lower() in {"sep=\\t", "sep=tab"}:
        return rest, len(end), "\t"
    return text, 0, ""


def _delimiter(text: str, needed: Sequence[str]) -> str:
    """Return the delimiter with which the header has all needed columns, or else the one that it has most of."""
    head = next((line for line in text.split("\n") if line.strip(_DELIMITERS + " ")), "")
    for delimiter in _DELIMITERS:
        try:
            names = next(csv.reader([head], delimiter=delimiter), [])
        except csv.Error:
            continue
        if set(needed) <= {name.strip().lower() for name in names}:
            return delimiter
    return max(_DELIMITERS, key=head.count)


def _check_columns(table: Path, line: int, columns: Sequence[str], needed: Sequence[str], hint: str) -> None:
    for column in needed:
        if column not in columns:
            found = ", ".join(filter(None, columns)) or "none"
            raise InputError(f"{table} lacks the column {column!r}, it has {found}", hint=hint)
    twice = next((name for name in columns if name and columns.count(name) > 1), None)
    if twice is not None:
        raise InputError(
            f"{table} line {line} names the column {twice!r} twice", hint="leave one of the two out"
        )


def _check_width(table: Path, line: int, cells: list[str], columns: Sequence[str], delimiter: str) -> None:
    """Refuse a row that does not fit the header. Empty cells beyond the last column are allowed."""
    while len(cells) > len(columns) and not cells[-1]:
        cells.pop()
    if len(cells) != len(columns):
        shown = "tabs" if delimiter == "\t" else f"{delimiter!r}"
        raise InputError(
            f"{table} line {line} has {len(cells)} cells and the header {len(columns)} (separated by {shown})",
            hint="put a cell that holds the separator between quotation marks, and write empty cells too",
        )
