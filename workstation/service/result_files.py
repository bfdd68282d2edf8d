"""Read the files of a result for the routes: ``study.json``, and ``frames.csv`` as columns."""

from __future__ import annotations

import csv
import json
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from .problems import RequestError

__all__ = ["FrameColumns", "ResultFiles"]

# An examination of 57,600 frames and 10 labels takes 4 MB.
_KEPT = 6
_STATUSES = ("classified", "duplicate", "corrupt", "missing", "skipped", "unread")
_UNFAMILIAR = "unfamiliar"

T = TypeVar("T")


@dataclass(frozen=True)
class FrameColumns:
    """``frames.csv`` as columns, one entry per frame.

    Attributes:
        pts: presentation time in ticks; None for a missing frame.
        times_s: container time in seconds, float64; NaN for a missing frame.
        status: int8, index into ``statuses``.
        details: text.
        labels: key of the most probable label; empty for a frame without an answer.
        keys: keys of the labels, in the order of the columns of ``probabilities``.
        probabilities: float32 (frames, labels); NaN for a frame without an answer.
        statuses: the names of the statuses.
    """

    pts: list[int | None]
    times_s: npt.NDArray[np.float64]
    status: npt.NDArray[np.int8]
    details: list[str]
    labels: list[str]
    keys: tuple[str, ...]
    probabilities: npt.NDArray[np.float32]
    statuses: tuple[str, ...] = _STATUSES

    def __len__(self) -> int:
        return len(self.status)

    @property
    def unfamiliar(self) -> npt.NDArray[np.bool_]:
        """True where a frame was set aside as unfamiliar."""
        return np.fromiter((detail == _UNFAMILIAR for detail in self.details), np.bool_, len(self.details))

    def rows(self, start: int, count: int) -> list[dict[str, Any]]:
        """Return some frames as JSON values.

        Args:
            start: index of the first.
            count: number of frames at most.
        """
        return [self._row(index) for index in range(start, min(start + count, len(self)))]

    def _row(self, index: int) -> dict[str, Any]:
        time_s = float(self.times_s[index])
        label = self.labels[index]
        p = float(self.probabilities[index, self.keys.index(label)]) if label in self.keys else None
        return {
            "index": index,
            "pts": self.pts[index],
            "time_s": None if np.isnan(time_s) else time_s,
            "status": _STATUSES[self.status[index]],
            "detail": self.details[index],
            "label": label or None,
            "p": None if p is None else round(p, 6),
        }


def read_columns(path: Path) -> FrameColumns:
    """Return ``frames.csv`` as columns."""
    codes = {status: code for code, status in enumerate(_STATUSES)}
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.reader(file)
        head = next(reader)
        keys = tuple(name.removeprefix("p_") for name in head[7:])
        rows = list(reader)
    return FrameColumns(
        pts=[int(row[1]) if row[1] else None for row in rows],
        times_s=np.array([float(row[2]) if row[2] else np.nan for row in rows], np.float64),
        status=np.array([codes[row[3]] for row in rows], np.int8),
        details=[row[5] for row in rows],
        labels=[row[6] for row in rows],
        keys=keys,
        probabilities=np.array(
            [[float(value) if value else np.nan for value in row[7:]] for row in rows], np.float32
        ).reshape(len(rows), len(keys)),
    )


class _Cache(Generic[T]):
    """The last values of a function by key. Two threads that ask for one key at once compute it once."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._values: OrderedDict[str, T] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: str, make: Callable[[], T]) -> T:
        """Return the value for a key, made when it is not there."""
        with self._lock:
            if key not in self._values:
                self._values[key] = make()
                while len(self._values) > self._size:
                    self._values.popitem(last=False)
            self._values.move_to_end(key)
            return self._values[key]

    def forget(self, beginning: str) -> None:
        """Drop the values whose key begins so."""
        with self._lock:
            for key in [each for each in self._values if each.startswith(beginning)]:
                del self._values[key]


class ResultFiles:
    """The files of results. They never change, so what was read is kept for a while.

    Args:
        home: the folder that the folders of results are relative to.
    """

    def __init__(self, home: Path) -> None:
        self._home = home
        self._columns: _Cache[FrameColumns] = _Cache(_KEPT)
        self._documents: _Cache[dict[str, Any]] = _Cache(_KEPT)

    def path(self, folder: str, name: str) -> Path:
        """Return the path of a file of a result.

        Args:
            folder: of the result, as the database has it.
            name: such as ``study.json``.
        """
        return self._home / folder / name

    def document(self, folder: str) -> dict[str, Any]:
        """Return ``study.json`` of a result.

        Raises:
            RequestError: 503, the file is gone or damaged.
        """
        path = self.path(folder, "study.json")
        return self._documents.get(folder, lambda: _guarded(lambda: json.loads(path.read_text("utf-8"))))

    def columns(self, folder: str) -> FrameColumns:
        """Return ``frames.csv`` of a result as columns.

        Raises:
            RequestError: 503, the file is gone or damaged.
        """
        path = self.path(folder, "frames.csv")
        return self._columns.get(folder, lambda: _guarded(lambda: read_columns(path)))

    def forget(self, folder: str) -> None:
        """Drop what was read of all results whose folder begins with ``folder``."""
        self._columns.forget(folder)
        self._documents.forget(folder)

    def content(self, folder: str, name: str) -> bytes:
        """Return the bytes of a file of a result.

        Raises:
            RequestError: 503, the file is gone or cannot be read.
        """
        return _guarded(self.path(folder, name).read_bytes)


def _guarded(read: Callable[[], T]) -> T:
    try:
        return read()
    except (OSError, ValueError, LookupError, TypeError, StopIteration, csv.Error) as error:
        raise RequestError(
            503,
            "result_damaged",
            f"a file of this result cannot be read ({type(error).__name__})",
            hint="restore a backup of the home folder, or read the study again",
        ) from error
