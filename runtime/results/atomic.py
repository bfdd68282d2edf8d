"""Several files that appear together or not at all, with one of them as the sign that the others are whole.

A disk moves one file at a time, so a process can be killed between two moves. The sign is therefore withdrawn
before the first and set by the last: where it lies, all the files beside it are of one run; where it does not,
they are not to be trusted.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from ..errors import OutputError

__all__ = ["clear_leftovers", "commit_files", "reason"]

_STAGED, _EARLIER = ".tmp", ".earlier"


def commit_files(folder: Path, contents: Mapping[str, bytes], *, sign: str) -> dict[str, Path]:
    """Write the files of ``contents`` (name to bytes) into ``folder``, ``sign`` last; returns their paths.

    All are written beside their names first (a move within a folder is atomic), so that a full disk is met
    before anything has changed. Should a move itself fail, those before it are taken back. Should the process
    be killed between two moves, ``sign`` is not there.

    Raises ``OutputError`` with the folder as it was.
    """
    names = [name for name in contents if name != sign] + [sign]
    mark = uuid.uuid4().hex
    staged = {name: folder / f".{name}.{mark}{_STAGED}" for name in names}
    earlier = {name: folder / f".{name}.{mark}{_EARLIER}" for name in names}
    target = folder
    moved: list[str] = []
    try:
        for name in names:
            target = folder / name
            _write(staged[name], contents[name])
        target = folder / sign
        _set_aside(target, earlier[sign])
        _sync(folder)
        for name in names:
            target = folder / name
            if name != sign:
                _set_aside(target, earlier[name])
            else:
                # All others must have reached the disk under their names before the sign does.
                _sync(folder)
            os.replace(staged[name], target)
            moved.append(name)
        _sync(folder)
    except BaseException as error:
        # Also on ctrl-C: the sign comes back last.
        _take_back(folder, names, moved, earlier)
        if isinstance(error, OSError):
            raise OutputError(
                f"{target} cannot be written: {reason(error)}",
                hint="free some space, close a program that has the file open, or choose another --out",
            ) from error
        raise
    finally:
        for path in (*staged.values(), *(earlier.values() if sign in moved else ())):
            with suppress(OSError):
                path.unlink()
    return {name: folder / name for name in contents}


def clear_leftovers(folder: Path, names: tuple[str, ...]) -> None:
    """Remove what a killed process left beside the files of ``names``; only for who holds the folder's lock."""
    for name in names:
        for ending in (_STAGED, _EARLIER):
            for path in folder.glob(f".{name}.*{ending}"):
                with suppress(OSError):
                    path.unlink()


def reason(error: Exception) -> str:
    """The system's words without its errno and path, which the message already has."""
    return (getattr(error, "strerror", None) or str(error)).lower()


def _take_back(folder: Path, names: list[str], moved: list[str], earlier: Mapping[str, Path]) -> None:
    for name in names:
        with suppress(OSError):
            if earlier[name].exists():
                os.replace(earlier[name], folder / name)
            elif name in moved:
                (folder / name).unlink()


def _set_aside(path: Path, place: Path) -> None:
    with suppress(FileNotFoundError):
        os.replace(path, place)


def _write(path: Path, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    """Have the moves so far reach the disk in their order; only POSIX can, and not on every file system."""
    if os.name != "posix":
        return
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
