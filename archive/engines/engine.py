"""The interface of the engines, and what they are told and report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

__all__ = ["Refusal", "TaskEngine", "TaskLimits", "Work", "WorkerFailure"]

Work = Callable[[Any, Any], Any]
"""``work(setup, task)`` returns the result of a task and raises nothing. A module's function; it runs in a worker."""


@dataclass(frozen=True)
class TaskLimits:
    """The limits of one task.

    Attributes:
        memory_bytes: resident memory of the worker.
        seconds: from the start of the task to its end.
    """

    memory_bytes: int = 4 << 30
    seconds: float = 3600.0


@dataclass(frozen=True)
class WorkerFailure:
    """A task whose worker ended without a result.

    Attributes:
        cause: ``crashed``; ``killed`` by someone else (SIGKILL); over the limit of ``memory`` or ``time``; or
            ``node``: the machine was lost or cannot run tasks.
        message: the same in a sentence.
    """

    cause: Literal["crashed", "killed", "memory", "time", "node"]
    message: str


@dataclass(frozen=True)
class Refusal:
    """A machine that gets no task.

    Attributes:
        node: its name.
        message: why, in a sentence.
    """

    node: str
    message: str


class TaskEngine(Protocol):
    """Runs tasks. All methods are for one thread."""

    @property
    def slots(self) -> int:
        """Number of tasks that may run at once; it may change while machines come and go."""

    @property
    def refusals(self) -> tuple[Refusal, ...]:
        """The machines that get no task."""

    def submit(self, number: int, task: Any) -> None:
        """Begin a task. No more tasks than ``slots`` may be begun and not yet reported."""

    def wait(self, timeout_s: float) -> list[tuple[int, Any]]:
        """Return the number and the result of the tasks that have ended; wait for the first at most so long."""

    def close(self) -> None:
        """End all workers, also those that work."""
