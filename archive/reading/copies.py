"""Find the recordings of a run that are copies of each other, so that each is read once.

Recordings of one size may be copies. Workers identify them first. Of those with the same key, the first one in the
order of the list is read, and the others wait for its result. So the result names the same file for any number of
workers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .job import Job

__all__ = ["Copies"]


@dataclass
class _Alike:
    """Jobs whose recordings have the same size; ``unknown`` of them are not identified yet."""

    jobs: Sequence[Job]
    unknown: int


class Copies:
    """The jobs that may have the same result."""

    def __init__(self) -> None:
        self._alike: dict[Job, _Alike] = {}
        self._keys: dict[Job, str] = {}
        # The jobs that wait for the result of another one.
        self._waiting: dict[Job, list[Job]] = {}

    def add(self, jobs: Sequence[Job]) -> None:
        """Add jobs whose recordings have the same size, in the order of the list. They are to be identified."""
        alike = _Alike(jobs, len(jobs))
        for job in jobs:
            job.identify = True
        self._alike.update(dict.fromkeys(jobs, alike))

    def identify(self, job: Job, key: str) -> list[Job]:
        """Take the key of the result that a job will have, and return the jobs that may be read now."""
        self._keys[job] = key
        return self._count(self._alike[job])

    def end(self, job: Job) -> list[Job]:
        """Take that a job is over, and return the jobs that may be read now."""
        alike = self._alike.get(job)
        if alike is not None and job not in self._keys:  # it could not be identified
            return self._count(alike)
        waiting = self._waiting.pop(job, [])
        if waiting and job.done is None:
            self._waiting[waiting[0]] = waiting[1:]
            return waiting[:1]
        return waiting

    def _count(self, alike: _Alike) -> list[Job]:
        """Return the first job of each key, once all keys are known. The others wait."""
        alike.unknown -= 1
        if alike.unknown:
            return []
        of_key: dict[str, list[Job]] = {}
        for job in alike.jobs:
            if job in self._keys:
                of_key.setdefault(self._keys[job], []).append(job)
        for first, *others in of_key.values():
            self._waiting[first] = others
        return [first for first, *_ in of_key.values()]
