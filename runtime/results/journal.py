"""Keep the answered frames of a run in a file, so that a killed run can be resumed and ends in the same bytes.

The journal is a file of blocks. The first block identifies the run: everything that an answer depends on. Each further
block holds the answered frames of one batch. A block that a killed process left half written fails its checksum and is
cut off; its frames are answered again. So nothing has to wait until a block has reached the disk.

A resumed run decodes the recording from the beginning, since only decoding shows which frames the damage reaches. It
preprocesses and classifies only the frames that the journal lacks.
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
    """Answered frames as the journal keeps them.

    Attributes:
        records: records of the frames, in order.
        colours: mean red, green and blue of each frame, 0..255, float64 (frames, 3); NaN for a frame without a picture.
        field_of_view: field of view of the recording; None if it was not found or not needed.
    """

    records: Sequence[FrameRecord]
    colours: npt.NDArray[np.float64]
    field_of_view: FieldOfView | None

    def enter(self, table: FrameTable, bar: ColourBar) -> None:
        """Add the frames to the table and the colour bar, as if they had just been answered."""
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
    """Return the frames of a batch as the journal keeps them.

    Args:
        result: the model's answers for the batch.
        records: records of all container frames; those of the batch have their final status and probabilities.
    """
    colours = np.full((len(result.frames), 3), np.nan)
    for colour, row in zip(colours, result.rows, strict=True):
        if row is not None:
            colour[:] = result.colours[row]
    return JournalEntries([records[frame.index] for frame in result.frames], colours, result.field_of_view)


class Journal:
    """The journal of one run. Use it only while holding the folder's lock (``open_run`` does).

    Call ``begin``, then ``enter`` for each batch, and ``discard`` when the study is written. ``close`` keeps the file,
    so that the run can be resumed. All methods are for one thread.

    Args:
        folder: the run folder.

    Attributes:
        path: path of the journal's file.
        resumed: number of frames that ``begin`` returned.

    Example:
        with open_run("exam.capsule-edge", resume=True) as run:
            study = reader.read("exam.mp4", journal=run.journal)
            write_study(study, run.folder, timing={})
            run.journal.discard()
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.path = Path(folder) / JOURNAL
        self._file = BlockFile(self.path)
        self._entry: np.dtype[np.void] | None = None
        # The first block, while a thread still computes it; and the batches that are entered meanwhile.
        self._head: Future[bytes] | None = None
        self._waiting: list[bytes] = []
        self.resumed = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def is_there(self) -> bool:
        """True if the journal holds at least one answered batch, of this run or an earlier one."""
        try:
            self._write()
        except CapsuleEdgeError:  # ``enter`` and ``close`` report it; here only the file counts
            self._waiting.clear()
        return len(list(self._file.read(2))) == 2

    def begin(
        self,
        identity: Mapping[str, Any] | Callable[[], Mapping[str, Any]],
        *,
        labels: int,
        records: Sequence[FrameRecord],
    ) -> JournalEntries | None:
        """Resume the run in the file, or start a new one if the file holds no answered frame.

        Args:
            identity: everything that an answer depends on, JSON values by name; or a function that returns it. A new
                run calls the function in a thread, and keeps the entered batches in memory until it has returned.
            labels: number of labels of the model.
            records: records of all container frames.

        Returns:
            The answered frames, with their answers; None if there are none. The last classified frame and the frames
            after it are left out: the next frame may be its duplicate, and the comparison needs its picture.

        Raises:
            UsageError: the file is of another run.
            OutputError: the file cannot be read or written.
        """

        def head() -> bytes:
            found = identity() if callable(identity) else identity
            return json.dumps({"schema": _SCHEMA, **found, "labels": labels}, ensure_ascii=False).encode()

        self._entry = _entry_type(labels)
        blocks = list(self._file.read())
        if len(blocks) > 1:
            self._compare(json.loads(blocks[0][1]), json.loads(head()))
            kept, answers = self._answered(blocks[1:], records)
            self._file.open(kept)
            return answers
        self._file.open(0)
        if callable(identity):
            self._head = start(head, name="identity")
        else:
            self._file.append(head())
        return None

    def enter(self, answers: JournalEntries) -> None:
        """Append the answered frames of a batch.

        Raises:
            OutputError: the file cannot be written. The batches that were entered before stay whole.
        """
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
        self._waiting.append(_BOX.pack(box is not None, *sides) + rows.tobytes())
        if self._head is None or self._head.done():
            self._write()

    def close(self) -> None:
        """Write the batches that are still in memory, and close the file.

        Raises:
            OutputError: the file cannot be written.
        """
        try:
            self._write()
        finally:
            self._end()

    def discard(self) -> None:
        """Remove the file, because the study is written or the run is not to be resumed."""
        self._end()
        with suppress(FileNotFoundError):
            self.path.unlink()

    def _end(self) -> None:
        self._head, self._waiting = None, []
        self._file.close()

    def _write(self) -> None:
        """Append the batches in memory; if the first block is not written yet, wait for it and write it first."""
        if self._head is not None and self._waiting:
            self._file.append(self._head.result())
            self._head = None
        while self._waiting:
            self._file.append(self._waiting[0])
            del self._waiting[0]

    def _compare(self, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
        other = [name for name in wanted if found.get(name) != wanted[name]]
        if other:
            name = other[0]
            raise UsageError(
                f"the interrupted run in {self.path.parent} has another {name}: "
                f"{found.get(name)}, not {wanted[name]}",
                hint="resume it with the same recording, model and options, or start over with --overwrite",
            )

    def _answered(
        self, blocks: Sequence[tuple[int, bytes]], records: Sequence[FrameRecord]
    ) -> tuple[int, JournalEntries | None]:
        """Return the end of the last whole block, and the answered frames before the last classified one."""
        assert self._entry is not None
        parts = [np.frombuffer(payload, self._entry, offset=_BOX.size) for _, payload in blocks]
        rows = np.concatenate(parts)
        # A resumed run answers some frames again: the last answer counts.
        _, last = np.unique(rows["index"][::-1], return_index=True)
        rows = rows[len(rows) - 1 - last]
        seen = np.flatnonzero(rows["status"] == STATUSES.index("classified"))
        rows = rows[: seen[-1]] if len(seen) else rows[:0]
        known, *sides = _BOX.unpack_from(blocks[-1][1])
        self.resumed = len(rows)
        answers = JournalEntries(
            [_record(row, records[int(row["index"])]) for row in rows],
            rows["colour"].copy(),
            _field_of_view(sides) if known else None,
        )
        return blocks[-1][0], answers if len(rows) else None


def _record(row: np.void, record: FrameRecord) -> FrameRecord:
    """Return the record of a frame with the answer in a row of the journal."""
    return replace(
        record,
        status=STATUSES[row["status"]],
        duplicate_of=None if row["duplicate_of"] < 0 else int(row["duplicate_of"]),
        detail=row["detail"].decode(),
        probabilities=row["probabilities"].copy() if row["answered"] else None,
    )


def _field_of_view(sides: Sequence[int]) -> FieldOfView:
    # This import loads OpenCV, which the journal needs only when a run is resumed.
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
