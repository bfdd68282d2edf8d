"""Lock a folder, so that one run at a time writes to it.

The lock is the operating system's: it is released when the process that holds it dies.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import OutputError

__all__ = ["LOCK", "lock_folder"]

LOCK = ".capsule-edge.lock"


@contextmanager
def lock_folder(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Hold the lock of a folder while the block runs, and remove the lock's file after it.

    A killed process leaves the empty file behind. That does no harm, since nobody holds the lock. Two locks in one
    process exclude each other too.

    Raises:
        OutputError: another run holds the lock, or the folder cannot be locked.
    """
    path = Path(folder) / LOCK
    try:
        descriptor = _acquire(path)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise OutputError(
            f"{folder} cannot be locked: {reason}", hint="choose another --out or ask for write access"
        ) from None
    if descriptor is None:
        raise OutputError(
            f"another run is writing to {folder}", hint="wait until it has ended, or choose another --out"
        )
    try:
        yield
    finally:
        # Remove the file before releasing the lock: afterwards it may already belong to another run. Windows cannot
        # remove an open file, so there it is removed below.
        with suppress(OSError):
            path.unlink()
        os.close(descriptor)
        with suppress(OSError):
            if sys.platform == "win32":
                path.unlink()


def _acquire(path: Path) -> int | None:
    """Return a file descriptor that holds the lock; None if another run holds it."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if not _lock(descriptor):
                os.close(descriptor)
                return None
            # A run that ended meanwhile may have removed the file. Then this lock is on a removed file, and other runs
            # will create and lock a new one: try again.
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                    return descriptor
        except BaseException:
            with suppress(OSError):
                os.close(descriptor)
            raise
        os.close(descriptor)


if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> bool:
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except PermissionError:
            return False
        return True

else:
    import fcntl

    def _lock(descriptor: int) -> bool:
        try:
            # fcntl's record locks would be released as soon as any descriptor of the file is closed.
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
