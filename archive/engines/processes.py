"""Run tasks on processes of this machine.

Each worker is a fresh interpreter (spawn, as Windows and macOS have it) that serves one task after the other. The
driver waits for results and for the ends of processes at once. A worker that ends, is over a limit or hangs is
replaced when the next task needs it.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

from capsule_edge.runtime.cores import count_cores

from .engine import Refusal, TaskLimits, Work, WorkerFailure
from .limits import OVER_MEMORY, OVER_TIME, Watch, die_with_parent, prepare_worker

__all__ = ["ProcessEngine"]

# Seconds that a worker may be over its time before the driver ends it: its own watch is stopped too, then.
_GRACE_S = 5.0
# Seconds more for the first task of a worker, whose interpreter has to start.
_START_S = 60.0
# Seconds to wait for the end of a killed worker. One that hangs in the kernel is left behind.
_BURIAL_S = 2.0


class ProcessEngine:
    """Run tasks on processes of this machine.

    Args:
        work: called in the workers.
        setup: its first argument; sent to each worker once.
        workers: number of processes; 0 for one each core.
        limits: of each task.
    """

    def __init__(self, work: Work, setup: Any, *, workers: int = 0, limits: TaskLimits | None = None) -> None:
        self._work, self._setup, self._limits = work, setup, limits or TaskLimits()
        self._slots = workers or count_cores()
        self._idle: list[_Worker] = []
        self._busy: dict[int, _Worker] = {}

    @property
    def slots(self) -> int:
        """Number of processes."""
        return self._slots

    @property
    def refusals(self) -> tuple[Refusal, ...]:
        """None: this machine is that of the driver."""
        return ()

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers that have been started and not ended."""
        return [worker.pid for worker in (*self._busy.values(), *self._idle)]

    def submit(self, number: int, task: Any) -> None:
        """Begin a task on an idle worker, or on a new one."""
        while self._idle:
            worker = self._idle.pop()
            if worker.send(task, self._limits.seconds):
                self._busy[number] = worker
                return
            worker.end()
        worker = _Worker(self._work, self._setup, self._limits)
        worker.send(task, self._limits.seconds)
        self._busy[number] = worker

    def wait(self, timeout_s: float) -> list[tuple[int, Any]]:
        """Return the number and the result of the tasks that have ended."""
        now = time.monotonic()
        first = min((worker.until for worker in self._busy.values()), default=now) + _GRACE_S
        signs = [
            sign for worker in self._busy.values() for sign in (worker.connection, worker.process.sentinel)
        ]
        wait(signs, timeout=max(0.0, min(timeout_s, first - now)))
        found = []
        for number, worker in list(self._busy.items()):
            ended = self._look(worker)
            if ended is not None:
                del self._busy[number]
                found.append((number, ended[0]))
        return found

    def close(self) -> None:
        """End all workers."""
        for worker in (*self._busy.values(), *self._idle):
            worker.end()
        self._busy, self._idle = {}, []

    def _look(self, worker: _Worker) -> tuple[Any] | None:
        """Return the result of a worker's task in a tuple; None while it works."""
        try:
            if worker.connection.poll():
                result = worker.connection.recv()
                self._idle.append(worker)
                return (result,)
        except (EOFError, OSError):
            return (worker.failure(),)
        if not worker.process.is_alive():
            # It may have sent the result and ended between the two questions.
            if worker.connection.poll():
                return self._look(worker)
            return (worker.failure(),)
        if time.monotonic() > worker.until + _GRACE_S:
            worker.end()
            return (WorkerFailure("time", f"it did not end within {self._limits.seconds:.0f} s"),)
        return None


class _Worker:
    """A process that serves tasks."""

    def __init__(self, work: Work, setup: Any, limits: TaskLimits) -> None:
        self._limits = limits
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process: SpawnProcess = context.Process(
            target=_serve,
            args=(theirs, work, setup, limits, os.getpid()),
            name="capsule-edge-worker",
            daemon=True,
        )
        self.process.start()
        # Only the worker holds its end now, so its death ends the connection.
        theirs.close()
        self.pid = self.process.pid or 0
        self.until = 0.0
        self._starts = _START_S

    def send(self, task: Any, seconds: float) -> bool:
        """Send a task and return whether the worker could take it."""
        self.until = time.monotonic() + seconds + self._starts
        self._starts = 0.0
        try:
            self.connection.send(task)
        except OSError:
            return False
        return True

    def end(self) -> None:
        """Kill the process. One that the system cannot end is left behind."""
        self.process.kill()
        self.process.join(_BURIAL_S)
        self.connection.close()

    def failure(self) -> WorkerFailure:
        """Return why the process ended."""
        self.process.join(_BURIAL_S)
        code = self.process.exitcode
        self.connection.close()
        if code == OVER_MEMORY:
            return WorkerFailure(
                "memory", f"it took more than {self._limits.memory_bytes / 2**20:,.0f} MB of memory"
            )
        if code == OVER_TIME:
            return WorkerFailure("time", f"it did not end within {self._limits.seconds:.0f} s")
        if code is not None and -code == getattr(signal, "SIGKILL", None):
            return WorkerFailure("killed", "its process was killed from outside (SIGKILL)")
        if code is not None and code < 0:
            return WorkerFailure("crashed", f"its process crashed ({_signal_name(-code)})")
        return WorkerFailure("crashed", f"its process ended with exit code {code}")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _serve(connection: Connection, work: Work, setup: Any, limits: TaskLimits, driver: int) -> None:
    """Serve tasks until the driver closes the connection. The body of a worker process."""
    prepare_worker()
    die_with_parent()
    # Ctrl-C reaches the whole group of processes; the driver decides what becomes of the workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    orphaned = (lambda: os.getppid() != driver) if hasattr(os, "getppid") else (lambda: False)
    watch = Watch(limits, orphaned=orphaned)
    with suppress(EOFError, OSError):
        while True:
            task = connection.recv()
            watch.begin()
            result = work(setup, task)
            watch.end()
            connection.send(result)
