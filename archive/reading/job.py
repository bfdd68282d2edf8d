"""One recording on its way to a result: which tasks are due, and what their results mean."""

from __future__ import annotations

from collections import Counter

from capsule_edge.runtime.pipeline import Part

from ..engines import WorkerFailure
from ..sources import Recording, RecordingState
from .tasks import (
    Divided,
    Done,
    Failed,
    Identified,
    IdentifyTask,
    JoinTask,
    OpenTask,
    PartDone,
    PartTask,
    Ready,
    Task,
)

__all__ = ["BLAMELESS", "KILLED_TRIES", "Job"]

# Causes that say little about the recording: the next run tries it again.
BLAMELESS = frozenset({"killed", "node", "output", "changed", "unreachable", "package"})
# A worker that was killed from outside, or lost with its machine, is replaced so often for one task.
KILLED_TRIES = 10


class Job:
    """One recording that is read.

    Args:
        recording: the recording.
        tries: how often a task may fail.
        divide: whether several workers share a long recording.
        looked: size and time of change of the recording before the first try; None if that is not known.

    Attributes:
        identify: whether the key of the result is to be told first, as the recording may be a copy.
        done: the result; None before it is there.
        failed: why the recording is given up; None if it is not.
        failures: number of tries that ended without a result.
        last_cause: of the last of them; empty before.
    """

    def __init__(
        self, recording: Recording, *, tries: int, divide: bool, looked: RecordingState | None = None
    ) -> None:
        self.recording, self.identify = recording, False
        self.done: Done | None = None
        self.failed: Failed | None = None
        self.failures, self.last_cause = 0, ""
        self._tries, self._divide, self._looked = tries, divide, looked
        self._failures: Counter[tuple[str, bool]] = Counter()
        self._ready: Ready | None = None
        # The parts to read, in order; the index of those that are read; and the rest behind a damaged GOP.
        self._parts: tuple[Part, ...] = ()
        self._read: set[int] = set()
        self._rests: dict[int, Part] = {}
        self._seconds = 0.0

    @property
    def over(self) -> bool:
        """True when there is a result or none will come."""
        return self.done is not None or self.failed is not None

    @property
    def state(self) -> RecordingState | None:
        """Size and time of change of the recording when it was opened, or before; None if that is not known.

        Never after: a recording that was copied anew or became readable meanwhile would count as unchanged.
        """
        if self.done is not None:
            return self.done.state
        return self._looked if self._ready is None else self._ready.state

    def begin(self) -> list[Task]:
        """Return the first task."""
        location, address = self.recording.location, self.recording.address
        if self.identify:
            return [IdentifyTask(location, address)]
        return [OpenTask(location, self._divide, address)]

    def give_up(self, cause: str, message: str) -> None:
        """End the job without a result."""
        self.failed = Failed(cause, message)

    def is_due(self, task: Task) -> bool:
        """Return whether a task that waits is still needed: not behind a damaged GOP."""
        if self.over or self._is_of_before(task):
            return False
        if not isinstance(task, PartTask) or task.part not in self._parts:
            return True
        return not self._rests or self._parts.index(task.part) <= min(self._rests)

    def take(self, task: Task, result: object) -> list[Task]:
        """Take the result of a task and return the tasks that are due now."""
        if self.over or self._is_of_before(task):
            return []
        if isinstance(result, Done):
            self.done = result
            return []
        if isinstance(result, Identified):
            self.identify = False
            return []
        if isinstance(result, Divided):
            self._ready, self._parts = result.ready, result.ready.division.parts
            self._seconds = result.seconds
            return [PartTask(result.ready, part) for part in self._parts]
        if isinstance(result, PartDone) and isinstance(task, PartTask):
            self._seconds += result.seconds
            return self._take_part(task, result)
        return self._try_again(task, result)

    def _take_part(self, task: PartTask, result: PartDone) -> list[Task]:
        ready = task.ready
        if task.part not in self._parts:  # the rest behind a damaged GOP
            place = next(place for place, rest in self._rests.items() if rest == task.part)
            return [JoinTask(ready, (*self._parts[: place + 1], task.part), self._seconds)]
        place = self._parts.index(task.part)
        before = self._first_rest()
        self._read.add(place)
        if result.rest is not None:
            self._rests[place] = result.rest
        found = self._first_rest()
        if found is not None:
            return [PartTask(ready, self._rests[found])] if before is None else []
        whole = len(self._read) == len(self._parts)
        return [JoinTask(ready, self._parts, self._seconds)] if whole and not self._rests else []

    def _is_of_before(self, task: Task) -> bool:
        """Return whether a task is of a division that was given up because the recording changed."""
        return isinstance(task, PartTask | JoinTask) and task.ready is not self._ready

    def _first_rest(self) -> int | None:
        """Return the place of the first part that ended early, once all parts before it are read."""
        place = min(self._rests, default=None)
        return place if place is not None and all(before in self._read for before in range(place)) else None

    def _try_again(self, task: Task, result: object) -> list[Task]:
        failed = _describe(result)
        outside = failed.cause in ("killed", "node")
        self.failures, self.last_cause = self.failures + 1, failed.cause
        self._failures[_name(task), outside] += 1
        if self._failures[_name(task), outside] >= (KILLED_TRIES if outside else self._tries):
            self.failed = failed
            return []
        if failed.cause == "changed":  # begin anew: the division is of what it was before
            self._ready, self._parts, self._read, self._rests, self._seconds = None, (), set(), {}, 0.0
            return self.begin()
        return [task]


def _describe(result: object) -> Failed:
    if isinstance(result, Failed):
        return result
    if isinstance(result, WorkerFailure):
        return Failed(result.cause, result.message)
    return Failed("internal", f"a worker returned {type(result).__name__}")


def _name(task: Task) -> str:
    """Return a name under which the tries of a task are counted."""
    if isinstance(task, PartTask):
        return f"part {task.part.frames.start} {task.part.in_order}"
    return type(task).__name__
