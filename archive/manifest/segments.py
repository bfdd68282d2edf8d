"""Numbered files of rows that never change once they are there: ``00000001.parquet``, and merged ones.

A merged file, such as ``00000001-00000064.parquet``, holds the newest rows of the files that it replaces. They are
removed after it is in place, so a file whose number lies in the range of another is ignored.

A file of 0 bytes holds no row and is ignored: on a file system without hard links, a name is taken first and filled
then, and a driver may die between the two.

A file gets its name only if no file has it: two drivers that wrote one number would both go on with half the rows.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from capsule_edge.runtime.errors import InputError, OutputError

__all__ = ["Segment", "choose_segments", "list_segments", "publish", "remove_leftovers"]

_ENDING, _STAGED = ".parquet", ".tmp"


@dataclass(frozen=True, order=True)
class Segment:
    """A file of rows: ``first`` and ``last`` are the numbers that it stands for."""

    first: int
    last: int

    @property
    def name(self) -> str:
        """Name of the file."""
        alone = f"{self.first:08d}"
        return (alone if self.first == self.last else f"{alone}-{self.last:08d}") + _ENDING

    @property
    def span(self) -> int:
        """Number of segments that the file stands for."""
        return self.last - self.first + 1


def list_segments(folder: Path) -> list[Segment]:
    """Return the files of a folder that count, in order: without empty ones and those that a merged file replaces.

    Raises:
        InputError: the folder cannot be listed.
    """
    try:
        with os.scandir(folder) as entries:
            return choose_segments([entry.name for entry in entries if not _is_empty(entry)])
    except FileNotFoundError:
        return []
    except OSError as error:
        raise InputError(
            f"{folder} cannot be listed: {(error.strerror or str(error)).lower()}",
            hint="check the path and your rights to it",
        ) from error


def choose_segments(names: Iterable[str]) -> list[Segment]:
    """Return the files that count among those with these names, as ``list_segments`` does; none may be empty."""
    found = []
    for name in names:
        numbers = name.removesuffix(_ENDING).split("-")
        if name.endswith(_ENDING) and all(part.isdecimal() for part in numbers) and len(numbers) <= 2:
            found.append(Segment(int(numbers[0]), int(numbers[-1])))
    kept: list[Segment] = []
    for each in sorted(found, key=lambda segment: (segment.first, -segment.last)):
        if not kept or each.last > kept[-1].last:
            kept.append(each)
    return kept


def publish(folder: Path, segment: Segment, data: bytes) -> None:
    """Write a file whole under a name that no file has yet.

    Raises:
        OutputError: the name is taken, or the file cannot be written.
    """
    path = folder / segment.name
    staged = folder / f".{segment.name}.{uuid.uuid4().hex[:12]}{_STAGED}"
    try:
        with staged.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        _move_to_free_name(staged, path)
    except FileExistsError:
        raise OutputError(
            f"{path} is there already: another driver writes to this archive",
            hint="end one of the two drivers and run the other again",
        ) from None
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written: {(error.strerror or str(error)).lower()}",
            hint="free some space or check your rights, and run the command again: it goes on where it stopped",
        ) from error
    finally:
        with suppress(OSError):
            staged.unlink()


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed driver left half written, empty files, and those that a merged one replaces. Driver only."""
    kept = {segment.name for segment in list_segments(folder)}
    for path in folder.iterdir():
        if path.name.endswith(_STAGED) or (path.suffix == _ENDING and path.name not in kept):
            with suppress(OSError):
                path.unlink()


def _is_empty(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.stat().st_size == 0
    except FileNotFoundError:  # merged meanwhile
        return True


def _move_to_free_name(staged: Path, path: Path) -> None:
    """Move a file; raise ``FileExistsError`` if the name is taken."""
    if os.name == "nt":
        os.rename(staged, path)  # Windows refuses a name that is taken
        return
    try:
        os.link(staged, path)
    except (FileExistsError, FileNotFoundError):
        # The name is taken; or the file went away, because another driver has removed it as left over.
        raise
    except OSError:
        # A file system without hard links. A driver that dies between the two calls leaves an empty file.
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
        try:
            os.replace(staged, path)
        except BaseException:
            with suppress(OSError):
                path.unlink()
            raise
