"""Write files so that each is whole or absent: one alone (``whole_file``), or several together (``commit_files``).

A file is written under a temporary name in the folder of its final name, forced to the disk, and moved. A move within
a folder is atomic, so a reader sees the earlier file or the new one, never a part.

A disk moves one file at a time, so a process can be killed between the moves of several files. ``commit_files``
therefore makes one of them the sign that the others are whole: it removes the sign before the first move and puts the
new sign in place last. If the sign exists, all files beside it are of the same run. If it does not, do not trust them.
"""

from __future__ import annotations

import glob
import os
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import OutputError

__all__ = ["clear_abandoned", "clear_leftovers", "commit_files", "reason", "whole_file", "write_whole"]

_STAGED, _EARLIER = ".tmp", ".earlier"
_ABANDONED_S = 600.0
_HINT = "free some space, close a program that has the file open, or choose another place"


@contextmanager
def whole_file(path: str | os.PathLike[str], *, hint: str = _HINT) -> Iterator[Path]:
    """Yield a temporary path in the folder of ``path``; move it to ``path`` when the block ends without an error.

    If the block raises any error, the temporary file is removed and an earlier file at ``path`` stays as it was.
    The temporary name has the suffix of ``path``, since some libraries choose the file format by it.

    Args:
        path: the file to write; an earlier one is replaced. Its folder must exist when the block ends.
        hint: the next step that the error suggests.

    Raises:
        OutputError: the file cannot be written or moved. Every ``OSError`` of the block becomes this error, so do
            nothing in the block but write the file.

    Example:
        with whole_file("answers.npz") as temporary:
            np.savez(temporary, logits=logits)
    """
    target = Path(path)
    temporary = target.with_name(f".{target.stem}.{uuid.uuid4().hex[:12]}{_STAGED}{target.suffix}")
    try:
        yield temporary
        # Windows syncs only what is open for writing.
        with temporary.open("r+b") as file:
            os.fsync(file.fileno())
        os.replace(temporary, target)
        _sync_folder(target.parent)
    except OSError as error:
        raise OutputError(f"{target} cannot be written: {reason(error)}", hint=hint) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def write_whole(path: str | os.PathLike[str], data: bytes, *, hint: str = _HINT) -> Path:
    """Write ``data`` to ``path``, whole or not at all, and return the path.

    Args:
        path: the file to write; an earlier one is replaced. Its folder must exist.
        data: all bytes of the file.
        hint: the next step that the error suggests.

    Raises:
        OutputError: the file cannot be written. An earlier file at ``path`` stays as it was.
    """
    with whole_file(path, hint=hint) as temporary:
        temporary.write_bytes(data)
    return Path(path)


def commit_files(folder: Path, contents: Mapping[str, bytes], *, sign: str) -> dict[str, Path]:
    """Write several files into ``folder``, all or none, and return their paths by name.

    All files are written under temporary names first, so a full disk is noticed before anything has changed. If a
    move fails, the moves before it are undone. If the process is killed between two moves, the sign is missing.

    Args:
        folder: an existing folder.
        contents: the bytes of each file by its name; earlier files of these names are replaced.
        sign: the name in ``contents`` that is moved last and shows that the others are whole.

    Raises:
        OutputError: a file cannot be written. The folder is as it was before.
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
            with staged[name].open("wb") as file:
                file.write(contents[name])
                file.flush()
                os.fsync(file.fileno())
        target = folder / sign
        _set_aside(target, earlier[sign])
        _sync_folder(folder)
        for name in names:
            target = folder / name
            if name != sign:
                _set_aside(target, earlier[name])
            else:
                # The other files must have reached the disk under their names before the sign does.
                _sync_folder(folder)
            os.replace(staged[name], target)
            moved.append(name)
        _sync_folder(folder)
    except BaseException as error:
        # BaseException: undo the moves on ctrl-C too. The earlier sign comes back last.
        _undo_moves(folder, names, moved, earlier)
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
    """Remove the temporary files of ``names`` that a killed ``commit_files`` left.

    Call it only while holding the folder's lock: otherwise another process may be writing them.
    """
    for name in names:
        for ending in (_STAGED, _EARLIER):
            for path in folder.glob(f".{name}.*{ending}"):
                with suppress(OSError):
                    path.unlink()


def clear_abandoned(path: Path) -> None:
    """Remove the temporary files that processes left which were killed in ``whole_file`` for ``path``.

    Another process may be writing ``path`` at this moment. Its temporary file changes all the time, so only files
    that have not changed for ten minutes are removed.
    """
    with suppress(OSError):
        for left in path.parent.glob(f".{glob.escape(path.stem)}.*{_STAGED}{path.suffix}"):
            if time.time() - left.stat().st_mtime > _ABANDONED_S:
                left.unlink()


def reason(error: Exception) -> str:
    """Return the system's message of an ``OSError`` in lower case, without its number and its path."""
    return (getattr(error, "strerror", None) or str(error)).lower()


def _undo_moves(folder: Path, names: list[str], moved: list[str], earlier: Mapping[str, Path]) -> None:
    for name in names:
        with suppress(OSError):
            if earlier[name].exists():
                os.replace(earlier[name], folder / name)
            elif name in moved:
                (folder / name).unlink()


def _set_aside(path: Path, place: Path) -> None:
    with suppress(FileNotFoundError):
        os.replace(path, place)


def _sync_folder(folder: Path) -> None:
    """Force the moves so far to the disk, in their order. Only POSIX can, and not on every file system."""
    if os.name != "posix":
        return
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
