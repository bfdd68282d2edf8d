"""Run tasks on Ray: a cluster of this machine's own, or one that is reached by its address.

Ray places the tasks, moves what they need, and tells which machine is lost. Here stands only what it leaves to its
caller: each machine is checked before it gets a task; tries are counted by the caller, so Ray repeats none; and no
more tasks are handed over than there are cores, so that none waits in Ray's memory.
"""

from __future__ import annotations

import os
import socket
import threading
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from capsule_edge.runtime.cores import count_cores
from capsule_edge.runtime.errors import BackendError

from ..packages import load_package
from .engine import Refusal, TaskLimits, Work, WorkerFailure
from .limits import Watch, prepare_worker

__all__ = ["RayEngine"]

_SURVEY_S = 2.0
# Tasks move some megabytes at most.
_STORE_BYTES = 256 << 20
# Seconds without any machine after which the engine gives up.
_LONELY_S = 300.0
_GRACE_S = 60.0
_KNOCK_S = 10.0


@dataclass(frozen=True)
class _Begun:
    number: int
    until: float


class RayEngine:
    """Run tasks on Ray.

    Args:
        work: called in the workers.
        setup: its first argument; moved to each machine once.
        address: of the cluster; None starts one on this machine.
        workers: most tasks at once; 0 for one each core of the cluster.
        limits: of each task.
        check: called once on each machine with ``setup`` and None; returns why the machine may not work, or nothing.
        notes: a folder that all machines see, where a worker that is over a limit says so before it ends.

    Raises:
        PackageError: Ray is not installed.
        BackendError: the cluster cannot be reached, or all of its machines are refused.
    """

    def __init__(
        self,
        work: Work,
        setup: Any,
        *,
        address: str | None = None,
        workers: int = 0,
        limits: TaskLimits | None = None,
        check: Work | None = None,
        notes: Path | None = None,
    ) -> None:
        self._ray = load_package("ray", needed_for="--ray")
        self._workers, self._limits = workers, limits or TaskLimits()
        self._check, self._setup = check, setup
        # A folder of this engine's own: one that was killed has left notes on other tasks of the same numbers.
        self._notes = None if notes is None else notes / uuid.uuid4().hex
        self._running: dict[Any, _Begun] = {}
        self._accepted: dict[str, float] = {}
        self._refused: dict[str, Refusal] = {}
        self._checks: dict[Any, tuple[str, str]] = {}
        self._cores: dict[str, int] = {}
        self._surveyed = self._alone_since = 0.0
        self._connect(address)
        self._needs = self._ray.put((work, setup, self._limits, self._notes))
        self._run = self._ray.remote(num_cpus=1, max_retries=0)(_run)
        self._survey_until_settled()

    @property
    def slots(self) -> int:
        """Number of cores of the machines that may work, at most ``workers``."""
        self._survey()
        cores = sum(self._cores.get(node, 0) for node in self._accepted)
        return min(cores, self._workers) if self._workers else cores

    @property
    def refusals(self) -> tuple[Refusal, ...]:
        """The machines that get no task."""
        return tuple(self._refused.values())

    def submit(self, number: int, task: Any) -> None:
        """Hand a task to Ray."""
        others = self._cores.keys() - self._accepted.keys()
        run = self._run
        if others:
            run = run.options(label_selector={"ray.io/node-id": f"in({','.join(sorted(self._accepted))})"})
        until = time.monotonic() + 2 * self._limits.seconds + _GRACE_S
        self._running[run.remote(self._needs, number, task)] = _Begun(number, until)

    def wait(self, timeout_s: float) -> list[tuple[int, Any]]:
        """Return the number and the result of the tasks that have ended."""
        self._survey()
        if not self._running:
            threading.Event().wait(min(timeout_s, 0.2))
            return []
        ready, _ = self._ray.wait(list(self._running), num_returns=1, timeout=timeout_s)
        if ready:
            ready, _ = self._ray.wait(list(self._running), num_returns=len(self._running), timeout=0)
        found = [(self._running.pop(each).number, self._result(each)) for each in ready]
        found = [(number, self._explain(number, result)) for number, result in found]
        for each, begun in list(self._running.items()):
            if time.monotonic() > begun.until:
                with suppress(Exception):
                    self._ray.cancel(each, force=True)
                del self._running[each]
                found.append((begun.number, self._over_time()))
        return found

    def close(self) -> None:
        """Cancel what runs and leave the cluster; one of this machine's own ends."""
        for each in self._running:
            with suppress(Exception):
                self._ray.cancel(each, force=True)
        self._running = {}
        self._ray.shutdown()

    def _connect(self, address: str | None) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        own: dict[str, Any] = {
            "num_cpus": self._workers or count_cores(),
            "include_dashboard": False,
            "object_store_memory": _STORE_BYTES,
        }
        if self._ray.is_initialized():  # the caller has connected already
            return
        try:
            if address:
                _knock(address)
            self._ray.init(
                **({"address": address} if address else own), log_to_driver=False, logging_level="ERROR"
            )
        except Exception as error:
            raise BackendError(
                f"the Ray cluster {address or 'of this machine'} cannot be reached: {_describe(error)}",
                hint="start it with 'ray start --head', and give the address that it prints to --ray",
            ) from error

    def _survey_until_settled(self) -> None:
        begun = time.monotonic()
        while True:
            self._survey(at_once=True)
            if not self._checks:
                break
            self._ray.wait(list(self._checks), num_returns=1, timeout=1.0)
            if time.monotonic() - begun > _LONELY_S:
                break
        if not self._accepted:
            reasons = "; ".join(f"{each.node}: {each.message}" for each in self._refused.values())
            raise BackendError(
                f"no machine of the Ray cluster may read: {reasons or 'none answers'}",
                hint="install the same version and the same model on all machines",
            )

    def _survey(self, *, at_once: bool = False) -> None:
        """Look which machines there are, and check those that are new."""
        if not at_once and time.monotonic() - self._surveyed < _SURVEY_S:
            return
        self._surveyed = time.monotonic()
        nodes = {node["NodeID"]: node for node in self._ray.nodes() if node["Alive"]}
        self._cores = {name: int(node["Resources"].get("CPU", 0)) for name, node in nodes.items()}
        self._accepted = {name: since for name, since in self._accepted.items() if name in nodes}
        checked = {node for node, _ in self._checks.values()} | self._accepted.keys() | self._refused.keys()
        for name, node in nodes.items():
            if name not in checked and self._cores[name]:
                self._begin_check(name, str(node.get("NodeManagerHostname") or name[:12]))
        self._end_checks()
        if self._accepted:
            self._alone_since = 0.0
        else:
            self._alone_since = self._alone_since or time.monotonic()
            if time.monotonic() - self._alone_since > _LONELY_S:
                raise BackendError(
                    "the Ray cluster has no machine left that may read",
                    hint="start machines and run the command again",
                )

    def _begin_check(self, name: str, host: str) -> None:
        if self._check is None:
            self._accepted[name] = time.monotonic()
            return
        strategies = load_package("ray.util.scheduling_strategies", needed_for="--ray")
        there = strategies.NodeAffinitySchedulingStrategy(name, soft=False)
        check = self._ray.remote(num_cpus=0, max_retries=2)(self._check)
        self._checks[check.options(scheduling_strategy=there).remote(self._setup, None)] = name, host

    def _end_checks(self) -> None:
        if not self._checks:
            return
        ready, _ = self._ray.wait(list(self._checks), num_returns=len(self._checks), timeout=0)
        for each in ready:
            name, host = self._checks.pop(each)
            try:
                reason = str(self._ray.get(each))
            except Exception as error:
                reason = f"it cannot run the check: {_describe(error)}"
            if reason:
                self._refused[name] = Refusal(host, reason)
            else:
                self._accepted[name] = time.monotonic()

    def _result(self, reference: Any) -> Any:
        """Return the result of a task, or why it has none."""
        errors = self._ray.exceptions
        try:
            return self._ray.get(reference)
        except errors.OutOfMemoryError:
            return WorkerFailure("memory", "its machine ran out of memory")
        except errors.WorkerCrashedError:
            return WorkerFailure("killed", "its process ended (a crash, or killed from outside)")
        except errors.TaskCancelledError:
            return self._over_time()
        except errors.RayTaskError as error:  # the work raises nothing, so it did not begin
            return WorkerFailure("node", f"its machine cannot run the task: {_describe(error)}")
        except errors.RayError as error:
            return WorkerFailure("node", f"its machine was lost: {_describe(error)}")

    def _explain(self, number: int, result: Any) -> Any:
        """Return the result; for a worker that ended itself, the limit that it was over."""
        if self._notes is None or not isinstance(result, WorkerFailure):
            return result
        note = self._notes / f"{number}.txt"
        try:
            cause = note.read_text("ascii")
            note.unlink()
        except OSError:
            return result
        if cause == "memory":
            most = self._limits.memory_bytes / 2**20
            return WorkerFailure("memory", f"it took more than {most:,.0f} MB of memory")
        return self._over_time()

    def _over_time(self) -> WorkerFailure:
        return WorkerFailure("time", f"it did not end within {self._limits.seconds:.0f} s")


def _knock(address: str) -> None:
    """Raise ``OSError`` if nobody listens at ``host:port``. Ray itself would try for many minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdecimal() and "://" not in address:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_KNOCK_S).close()


def _describe(error: Exception) -> str:
    """Return an error in one line. Of an error in a worker, Ray's own text begins with the place and not the cause."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, Exception):
        return f"{type(cause).__name__}: {_describe(cause)}"
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


class _Process:
    """The watch of this worker process, and the number of its task."""

    watch: Watch | None = None
    number = -1


def _run(needs: tuple[Work, Any, TaskLimits, Path | None], number: int, task: Any) -> Any:
    """Run one task in a worker of Ray."""
    work, setup, limits, notes = needs
    prepare_worker()
    _Process.number = number
    if _Process.watch is None:
        # Ray ends the workers of a driver that died.
        _Process.watch = Watch(limits, report=lambda cause: _leave_note(notes, cause), orphaned=lambda: False)
    _Process.watch.begin()
    try:
        return work(setup, task)
    finally:
        _Process.watch.end()


def _leave_note(notes: Path | None, cause: str) -> None:
    if notes is not None:
        with suppress(OSError):
            notes.mkdir(parents=True, exist_ok=True)
            (notes / f"{_Process.number}.txt").write_text(cause, "ascii")
