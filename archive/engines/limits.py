"""Hold a worker to its limits from inside: a thread ends the process when it takes too much or is left alone."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from .engine import TaskLimits

__all__ = ["OVER_MEMORY", "OVER_TIME", "Watch", "prepare_worker", "resident_bytes"]

# Exit codes of a worker that its own watch ended.
OVER_MEMORY, OVER_TIME, _ORPHANED = 77, 78, 79
_EVERY_S = 0.2
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OPENCV_FOR_THREADS_NUM", "MKL_NUM_THREADS")


def prepare_worker() -> None:
    """Give each worker one thread for mathematics, so that cores are not oversubscribed. Call it before imports."""
    for name in _THREAD_VARIABLES:
        os.environ[name] = "1"


def resident_bytes() -> int:
    """Return the resident memory of this process in bytes; 0 where the system does not say."""
    with suppress(OSError, ValueError, IndexError):
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    try:
        import psutil
    except ImportError:
        return 0
    return int(psutil.Process().memory_info().rss)


class Watch:
    """Watch the worker process in a thread of its own.

    Args:
        limits: of each task.
        report: called with ``memory`` or ``time`` before the process ends; it must not fail.
        orphaned: returns True when nobody waits for the results any more.
    """

    def __init__(
        self,
        limits: TaskLimits,
        *,
        report: Callable[[str], None] = lambda cause: None,
        orphaned: Callable[[], bool],
    ) -> None:
        self._limits, self._report, self._orphaned = limits, report, orphaned
        self._until: float | None = None
        threading.Thread(target=self._run, name="capsule-edge-watch", daemon=True).start()

    def begin(self) -> None:
        """Begin the time of a task."""
        self._until = time.monotonic() + self._limits.seconds

    def end(self) -> None:
        """End the time of a task."""
        self._until = None

    def _run(self) -> None:
        waiter = threading.Event()
        while not waiter.wait(_EVERY_S):
            if self._orphaned():
                os._exit(_ORPHANED)
            until = self._until
            if until is None:
                continue
            if resident_bytes() > self._limits.memory_bytes:
                self._report("memory")
                os._exit(OVER_MEMORY)
            if time.monotonic() > until:
                self._report("time")
                os._exit(OVER_TIME)


def die_with_parent() -> None:
    """Let the system end this process when its parent dies, also while it is busy in a library. Linux only."""
    if sys.platform != "linux":
        return
    import ctypes
    import signal

    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
