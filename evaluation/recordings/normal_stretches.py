"""Normal stretches on which a model raised events, as a table: ``false_events`` writes it, training weighs by it."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from capsule_edge.runtime.errors import InputError

from .._files import write_text
from ..datasets import label_key, read_rows

__all__ = ["NormalStretch", "read_stretches", "write_stretches"]

_HINT = "write it with python -m capsule_edge.evaluation.recordings.false_events RESULT TRUTH --out FILE"


@dataclass(frozen=True)
class NormalStretch:
    """Consecutive normal frames of a recording that lie in one false event.

    Attributes:
        recording: The name of the recording, such as ``exam.mp4``.
        label: The label key of the event.
        first_index: The index of the first frame.
        last_index: The index of the last frame.
        first_frame_number: The number of the first frame in its video; None where the truth has none.
        last_frame_number: The number of the last frame in its video; None where the truth has none.
        peak_p: The highest probability of ``label`` on these frames, 0..1.
        frames: The number of frames.
    """

    recording: str
    label: str
    first_index: int
    last_index: int
    first_frame_number: int | None
    last_frame_number: int | None
    peak_p: float
    frames: int


def write_stretches(stretches: Sequence[NormalStretch], path: Path) -> None:
    """Write stretches as CSV, completely or not at all.

    Raises:
        OutputError: The file cannot be written.
    """
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(field.name for field in fields(NormalStretch))
    for stretch in stretches:
        cells = ["" if cell is None else cell for cell in astuple(stretch)]
        cells[6] = f"{stretch.peak_p:.6f}"
        rows.writerow(cells)
    write_text(path, text.getvalue())


def read_stretches(path: Path) -> tuple[NormalStretch, ...]:
    """Read a table that ``write_stretches`` wrote. Only ``recording,label,first_index,last_index`` are required.

    Raises:
        InputError: The file cannot be read, lists no stretch, or a row has a cell that does not fit.
    """
    needed = ("recording", "label", "first_index", "last_index")
    found = [_stretch(path, line, row) for line, row in read_rows(path, needed, hint=_HINT)]
    if not found:
        raise InputError(f"{path} lists no stretch", hint=_HINT)
    return tuple(found)


def _stretch(path: Path, line: int, row: dict[str, str]) -> NormalStretch:
    where = f"{path} line {line}"
    if not row["recording"] or not row["label"]:
        raise InputError(f"{where} names no recording or no label", hint=_HINT)
    try:
        first, last = int(row["first_index"]), int(row["last_index"])
        first_number, last_number = (
            int(cell) if (cell := row.get(f"{end}_frame_number")) else None for end in ("first", "last")
        )
        peak, count = float(row.get("peak_p") or "nan"), int(row.get("frames") or last - first + 1)
    except ValueError as error:
        raise InputError(f"{where} has a cell that is not a number: {error}", hint=_HINT) from None
    if not 0 <= first <= last:
        raise InputError(
            f"{where} goes from index {first} to {last}, allowed is 0 <= first <= last", hint=_HINT
        )
    label = label_key(row["label"])
    return NormalStretch(row["recording"], label, first, last, first_number, last_number, peak, count)
