"""Read the truth table of a recording: one row for each labelled frame, with its place in presentation order."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from capsule_edge.runtime.errors import InputError

from ..datasets import LabelKeys, label_key, read_rows

__all__ = ["TRUTH_SUFFIX", "TruthRow", "read_truth", "truth_of"]

TRUTH_SUFFIX = ".truth.csv"
_HINT = "its columns are index,frame_number,time_s,label; index and label are required"
# Spreadsheets and pandas write a column of whole numbers with a hole in it as 12.0.
_WHOLE = re.compile(r"(\d{1,18})(\.0*)?")


@dataclass(frozen=True, slots=True)
class TruthRow:
    """The label of one frame of a recording.

    Attributes:
        index: The place of the frame in presentation order, from 0.
        label: The label key.
        frame_number: The number of the frame in its video; None where the table has none.
        time_s: Seconds from the first presented frame; None where the table has none.
        line: The line of the table.
    """

    index: int
    label: str
    frame_number: int | None
    time_s: float | None
    line: int


def truth_of(video: Path) -> Path:
    """Return the path of a recording's truth table: ``exam.truth.csv`` for ``exam.mp4``."""
    return video.with_suffix(TRUTH_SUFFIX)


def read_truth(table: Path, keys: LabelKeys | None = None) -> list[TruthRow]:
    """Read a truth table, in the order of its rows.

    Args:
        table: The CSV file, with the columns ``index,label`` and, if known, ``frame_number,time_s``.
        keys: Turns class names into label keys; None: ``label_key`` does. Rows of excluded classes are left out.

    Raises:
        InputError: The file cannot be read, a row has no label, an index or a number is not a whole number, a time
            is not a number, or two rows label the same frame.
    """
    rows: list[TruthRow] = []
    first: dict[tuple[str, int], int] = {}
    for line, cell in read_rows(table, ("index", "label"), hint=_HINT):
        where = f"{table} line {line}"
        if not cell["label"]:
            raise InputError(f"{where} has no label", hint="label frames without a finding Normal")
        index = _whole(cell["index"], "index", where)
        number = _whole(cell["frame_number"], "frame_number", where) if cell.get("frame_number") else None
        for name, value in (("index", index), ("frame_number", number)):
            if value is not None and (earlier := first.setdefault((name, value), line)) != line:
                raise InputError(
                    f"{table} lines {earlier} and {line} overlap: both label the frame with the {name} {value}",
                    hint="leave one of the two rows out",
                )
        time_s = _seconds(table, cell.get("time_s", ""))
        key = label_key(cell["label"]) if keys is None else keys.key_of(cell["label"], where)
        if key is not None:
            rows.append(TruthRow(index, key, number, time_s, line))
    return rows


def _whole(text: str, name: str, where: str) -> int:
    whole = _WHOLE.fullmatch(text)
    if whole is None:
        raise InputError(f"{where}: the {name} is {text!r}, it must be a whole number, 0 or more", hint=_HINT)
    return int(whole[1])


def _seconds(table: Path, text: str) -> float | None:
    try:
        return float(text) if text else None
    except ValueError as error:
        raise InputError(f"{table} has a time_s that is not a number: {error}") from None
