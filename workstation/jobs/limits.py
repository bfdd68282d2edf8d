"""Limit what a reading process may take, and end it when the service ends."""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection

__all__ = ["Limits", "end_with_parent", "give_way", "limit_memory"]

# prctl(2): send this signal when the parent ends.
_PR_SET_PDEATHSIG, _SIGKILL = 1, 9
# Linux then gives a reading about a tenth of the time that a process of usual priority gets (sched(7)).
_NICENESS = 10


@dataclass(frozen=True)
class Limits:
    """The limits of a reading process.

    Attributes:
        memory_bytes: memory of the process.
        seconds: time until the service ends it.
    """

    memory_bytes: int
    seconds: float


def limit_memory(memory_bytes: int) -> None:
    """Let allocations of this process fail beyond a size, where the system can do that (Linux, macOS).

    On Linux the limit is on data and not on address space: on a machine of many cores, libraries reserve far more
    addresses than they use.

    Args:
        memory_bytes: the size in bytes.
    """
    if sys.platform == "win32":
        return
    import resource

    kind = resource.RLIMIT_DATA if sys.platform == "linux" else resource.RLIMIT_AS
    _, hard = resource.getrlimit(kind)
    most = memory_bytes if hard == resource.RLIM_INFINITY else min(memory_bytes, hard)
    with suppress(ValueError, OSError):
        resource.setrlimit(kind, (most, hard))


def give_way() -> None:
    """Let other processes come first where they compete for the processor: the page, and previews of new studies.

    A reading alone on a machine takes as long as before. Windows has no such number.
    """
    if sys.platform != "win32":
        with suppress(OSError):
            os.nice(_NICENESS)


def end_with_parent(lifeline: Connection, parent: int) -> None:
    """End this process at once when the service ends, also when that is killed.

    Args:
        lifeline: a pipe whose other end only the service holds.
        parent: process id of the service.
    """
    threading.Thread(target=_watch, args=(lifeline,), daemon=True, name="lifeline").start()
    if sys.platform == "linux":
        import ctypes

        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, _SIGKILL)
        # The service may have ended before the call.
        if os.getppid() != parent:
            os._exit(1)


def _watch(lifeline: Connection) -> None:
    with suppress(EOFError, OSError):
        lifeline.recv_bytes()
    os._exit(1)
