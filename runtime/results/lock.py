"""One run at a time in a folder: a lock of the operating system, which dies with the process that holds it."""

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
    """Hold the folder for this run; the lock's file goes when the run ends, and stays empty after a crash.

    A file that a killed process left does not matter: it is locked by nobody. Two locks in one process
    exclude each other too.

    Raises ``OutputError`` where another run holds it and where the folder cannot be locked.
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
        # Before it is let go: afterwards the file may already be another run's. Windows keeps a file that is
        # open, and there it stays.
        with suppress(OSError):
            path.unlink()
        os.close(descriptor)
        with suppress(OSError):
            if sys.platform == "win32":
                path.unlink()


def _acquire(path: Path) -> int | None:
    """A descriptor that holds the lock, or None where another has it."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if not _lock(descriptor):
                os.close(descriptor)
                return None
            # The run that ended meanwhile took the file away with it, and what is locked here is no longer
            # what others will open.
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
            # Not fcntl's record locks: those are let go when any descriptor of the file is closed.
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
