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
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from .commit import reason
from .errors import OutputError, UsageError
from .pipeline import Answered
from .preprocess import FieldOfView
from .study import STATUSES, FrameRecord

__all__ = ["JOURNAL", "Answers", "Journal", "entries"]

JOURNAL = ".capsule-edge.journal"

_SCHEMA = "capsule-edge/journal/1"
_HEAD = struct.Struct("<II")  # bytes of the block, their CRC-32
_BOX = struct.Struct("<?4i")
# A damaged length must not make anyone read gigabytes; a batch has kilobytes.
_MOST_BYTES = 1 << 26


@dataclass(frozen=True)
class Answers:
    """Frames that are answered, in order: their records, what the colour bar needs and the field of view.

    ``colours`` is float64 (frames, 3), the mean red, green and blue of a frame, NaN where it has no picture.
    """

    records: Sequence[FrameRecord]
    colours: npt.NDArray[np.float64]
    field_of_view: FieldOfView | None


def entries(answered: Answered, records: Sequence[FrameRecord]) -> Answers:
    """A batch as the journal keeps it; ``records`` are of every container frame."""
    colours = np.full((len(answered.frames), 3), np.nan)
    for colour, frame in zip(colours, answered.frames, strict=True):
        if frame.row is not None:
            colour[:] = answered.colours[frame.row]
    return Answers([records[frame.index] for frame in answered.frames], colours, answered.field_of_view)


class Journal:
    """The journal of one run in ``folder``; only for who holds the folder's lock.

    ``begin`` it, ``enter`` each batch, and ``discard`` it once the study is written. Closing keeps the file.
    ``resumed`` is the number of frames that ``begin`` gave back.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.path = Path(folder) / JOURNAL
        self._end = 0
        self._file: int | None = None
        self._entry: np.dtype[np.void] | None = None
        self.resumed = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def is_there(self) -> bool:
        """Whether an earlier run left at least one answered frame here."""
        return len(list(self._blocks(2))) == 2

    def begin(
        self, identity: Mapping[str, Any], *, labels: int, records: Sequence[FrameRecord]
    ) -> Answers | None:
        """Take up the run that the file holds, or start one where it holds none.

        Args:
            identity: all that an answer depends on; JSON values.
            labels: of the model.
            records: of every container frame; those that are answered come back with their answer.

        Returns what is answered, None where nothing is. The last frame that was classified and those behind
        it are left out: the next may be its duplicate, for which its picture is needed.

        Raises ``UsageError`` where the file is of another run and ``OutputError`` where it cannot be written.
        """
        wanted = json.loads(json.dumps({"schema": _SCHEMA, **identity, "labels": labels}))
        self._entry = _entry_type(labels)
        blocks = list(self._blocks())
        if len(blocks) > 1:
            self._compare(json.loads(blocks[0][1]), wanted)
            kept, answers = self._take_up(blocks[1:], records)
        else:
            kept, answers = 0, None
        try:
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
            os.ftruncate(self._file, kept)
            os.lseek(self._file, kept, os.SEEK_SET)
        except OSError as error:
            raise self._refusal(error) from error
        self._end = kept
        if not kept:
            self._append(json.dumps(wanted, ensure_ascii=False).encode())
        return answers

    def enter(self, answers: Answers) -> None:
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
        self._append(_BOX.pack(box is not None, *sides) + rows.tobytes())

    def close(self) -> None:
        if self._file is not None:
            with suppress(OSError):
                os.close(self._file)
            self._file = None

    def discard(self) -> None:
        """Remove the file: the study is written, or is not to be gone on with."""
        self.close()
        with suppress(FileNotFoundError):
            self.path.unlink()

    def _append(self, payload: bytes) -> None:
        if self._file is None:
            raise RuntimeError("begin the journal first")
        block = memoryview(_HEAD.pack(len(payload), zlib.crc32(payload)) + payload)
        size = len(block)
        try:
            while block:
                block = block[os.write(self._file, block) :]
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(self._file, self._end)
                os.lseek(self._file, self._end, os.SEEK_SET)
            raise self._refusal(error) from error
        self._end += size

    def _refusal(self, error: OSError) -> OutputError:
        return OutputError(
            f"{self.path.parent} cannot be written: {reason(error)}",
            hint="free some space or choose another --out",
        )

    def _blocks(self, most: int | None = None) -> Iterator[tuple[int, bytes]]:
        """Where each whole block ends, and what it holds; the first is the identity."""
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._refusal(error) from error
        with file:
            count = 0
            while most is None or count < most:
                head = file.read(_HEAD.size)
                if len(head) < _HEAD.size:
                    return
                size, checksum = _HEAD.unpack(head)
                payload = file.read(size) if size <= _MOST_BYTES else b""
                # Of none is the checksum 0: what a power cut may leave is a file that ends in zeros.
                if not payload or len(payload) != size or zlib.crc32(payload) != checksum:
                    return
                yield file.tell(), payload
                count += 1

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
    ) -> tuple[int, Answers | None]:
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
        answers = Answers(
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
            FieldOfView(*sides) if known else None,
        )
        return blocks[-1][0], answers if len(rows) else None


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
