"""What a run has answered so far, on disk: a killed run goes on from there and ends in the same bytes.

The journal is one file of blocks, each appended whole after its batch was answered: what identifies the run,
then frames. A block that a dying process left half written fails its checksum and is cut off; the frames in it
are answered again. Nothing needs to reach the disk in order, so nothing waits for the disk.

A resumed run decodes from the beginning, since only so is known what damage reaches, and prepares and
classifies what the journal lacks.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from ..errors import CapsuleEdgeError, UsageError
from ..pipeline import start
from ..study import STATUSES, ColourBar, FrameRecord, FrameTable
from .block_file import BlockFile

if TYPE_CHECKING:
    from ..pipeline import BatchResult
    from ..preprocessing import FieldOfView

__all__ = ["JOURNAL", "Journal", "JournalEntries", "entries"]

JOURNAL = ".capsule-edge.journal"

_SCHEMA = "capsule-edge/journal/1"
_BOX = struct.Struct("<?4i")


@dataclass(frozen=True)
class JournalEntries:
    """Frames that are answered, in order: their records, what the colour bar needs and the field of view.

    ``colours`` is float64 (frames, 3), the mean red, green and blue of a frame, NaN where it has no picture.
    """

    records: Sequence[FrameRecord]
    colours: npt.NDArray[np.float64]
    field_of_view: FieldOfView | None

    def enter(self, table: FrameTable, bar: ColourBar) -> None:
        """As when they were answered."""
        for record, colour in zip(self.records, self.colours, strict=True):
            table.settle(
                record.index,
                record.status,
                detail=record.detail,
                duplicate_of=record.duplicate_of,
                probabilities=record.probabilities,
            )
            if np.isfinite(colour).all():
                bar.add(record.time_s or 0.0, colour)
            elif record.status == "duplicate":
                bar.again(record.time_s or 0.0)


def entries(result: BatchResult, records: Sequence[FrameRecord]) -> JournalEntries:
    """Return a batch's result as the journal keeps it.

    Args:
        result: of the batch.
        records: of every container frame, those of the batch settled.
    """
    colours = np.full((len(result.frames), 3), np.nan)
    for colour, row in zip(colours, result.rows, strict=True):
        if row is not None:
            colour[:] = result.colours[row]
    return JournalEntries([records[frame.index] for frame in result.frames], colours, result.field_of_view)


class Journal:
    """The journal of one run in ``folder``; only for who holds the folder's lock.

    ``begin`` it, ``enter`` each batch, and ``discard`` it once the study is written. Closing keeps the file.
    ``resumed`` is the number of frames that ``begin`` gave back.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.path = Path(folder) / JOURNAL
        self._file = BlockFile(self.path)
        self._entry: np.dtype[np.void] | None = None
        # The block that identifies the run, until it is written, and those behind it.
        self._head: Future[bytes] | None = None
        self._behind: list[bytes] = []
        self.resumed = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def is_there(self) -> bool:
        """Whether there is at least one answered frame, of this run or an earlier one."""
        try:
            self._write()
        except CapsuleEdgeError:  # said where it was entered; asked is what is there
            self._behind.clear()
        return len(list(self._file.read(2))) == 2

    def begin(
        self,
        identity: Mapping[str, Any] | Callable[[], Mapping[str, Any]],
        *,
        labels: int,
        records: Sequence[FrameRecord],
    ) -> JournalEntries | None:
        """Take up the run that the file holds, or start one where it holds none.

        Args:
            identity: all that an answer depends on, JSON values; or what finds that out, which is done in a thread
                where nothing needs to be compared with it. Until it is known what is entered is held in memory.
            labels: of the model.
            records: of every container frame; those that are answered come back with their answer.

        Returns what is answered, None where nothing is. The last frame that was classified and those behind
        it are left out: the next may be its duplicate, for which its picture is needed.

        Raises ``UsageError`` where the file is of another run and ``OutputError`` where it cannot be written.
        """

        def head() -> bytes:
            found = identity() if callable(identity) else identity
            return json.dumps({"schema": _SCHEMA, **found, "labels": labels}, ensure_ascii=False).encode()

        self._entry = _entry_type(labels)
        blocks = list(self._file.read())
        if len(blocks) > 1:
            self._compare(json.loads(blocks[0][1]), json.loads(head()))
            kept, answers = self._take_up(blocks[1:], records)
            self._file.open(kept)
            return answers
        self._file.open(0)
        if callable(identity):
            self._head = start(head, name="identity")
        else:
            self._file.append(head())
        return None

    def enter(self, answers: JournalEntries) -> None:
        """Append what became of a batch. Raises ``OutputError``; what was entered before stays whole."""
        if self._entry is None:
            raise RuntimeError("begin the journal first")
        rows = np.zeros(len(answers.records), self._entry)
        for row, record in zip(rows, answers.records, strict=True):
            row["index"] = record.index
            row["status"] = STATUSES.index(record.status)
            row["duplicate_of"] = -1 if record.duplicate_of is None else record.duplicate_of
            row["detail"] = record.detail.encode()
            row["answered"] = record.probabilities is not None
            if record.probabilities is not None:
                row["probabilities"] = record.probabilities
        rows["colour"] = answers.colours
        box = answers.field_of_view
        sides = (0, 0, 0, 0) if box is None else (box.left, box.top, box.width, box.height)
        self._behind.append(_BOX.pack(box is not None, *sides) + rows.tobytes())
        if self._head is None or self._head.done():
            self._write()

    def close(self) -> None:
        """Write what is held in memory and end. Raises ``OutputError`` where it cannot be written."""
        try:
            self._write()
        finally:
            self._end()

    def discard(self) -> None:
        """Remove the file: the study is written, or is not to be gone on with."""
        self._end()
        with suppress(FileNotFoundError):
            self.path.unlink()

    def _end(self) -> None:
        self._head, self._behind = None, []
        self._file.close()

    def _write(self) -> None:
        """Append the batches that are held, behind what identifies the run, which is waited for."""
        if self._head is not None and self._behind:
            self._file.append(self._head.result())
            self._head = None
        while self._behind:
            self._file.append(self._behind[0])
            del self._behind[0]

    def _compare(self, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
        other = [name for name in wanted if found.get(name) != wanted[name]]
        if other:
            name = other[0]
            raise UsageError(
                f"the interrupted run in {self.path.parent} has another {name}: "
                f"{found.get(name)}, not {wanted[name]}",
                hint="give what it was started with, or start over with --overwrite",
            )

    def _take_up(
        self, blocks: Sequence[tuple[int, bytes]], records: Sequence[FrameRecord]
    ) -> tuple[int, JournalEntries | None]:
        """What the blocks hold up to before the last classified frame, and where their last whole one ends."""
        assert self._entry is not None
        parts = [np.frombuffer(payload, self._entry, offset=_BOX.size) for _, payload in blocks]
        rows = np.concatenate(parts)
        # A frame that was answered again after an earlier resumption counts as it was answered last.
        _, last = np.unique(rows["index"][::-1], return_index=True)
        rows = rows[len(rows) - 1 - last]
        seen = np.flatnonzero(rows["status"] == STATUSES.index("classified"))
        rows = rows[: seen[-1]] if len(seen) else rows[:0]
        known, *sides = _BOX.unpack_from(blocks[-1][1])
        self.resumed = len(rows)
        answers = JournalEntries(
            [
                replace(
                    records[int(row["index"])],
                    status=STATUSES[row["status"]],
                    duplicate_of=None if row["duplicate_of"] < 0 else int(row["duplicate_of"]),
                    detail=row["detail"].decode(),
                    probabilities=row["probabilities"].copy() if row["answered"] else None,
                )
                for row in rows
            ],
            rows["colour"].copy(),
            _field_of_view(sides) if known else None,
        )
        return blocks[-1][0], answers if len(rows) else None


def _field_of_view(sides: Sequence[int]) -> FieldOfView:
    # Loads OpenCV, which a journal does without until a run is resumed.
    from ..preprocessing import FieldOfView

    return FieldOfView(*sides)


def _entry_type(labels: int) -> np.dtype[np.void]:
    return np.dtype(
        [
            ("index", "<i8"),
            ("duplicate_of", "<i8"),
            ("colour", "<f8", 3),
            ("probabilities", "<f4", labels),
            ("status", "i1"),
            ("answered", "?"),
            ("detail", "S30"),
        ]
    )
