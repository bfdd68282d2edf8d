"""A value that a thread works out while its asker does something else."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["Pending"]

T = TypeVar("T")


class Pending(Generic[T]):
    """``work()`` in a thread of its own; ``value`` waits for it and raises what it raised."""

    def __init__(self, work: Callable[[], T], *, name: str) -> None:
        self._work = work
        self._found: T | None = None
        self._failure: BaseException | None = None
        # A daemon: should the interpreter end meanwhile, it must not wait.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def ready(self) -> bool:
        return not self._thread.is_alive()

    @property
    def value(self) -> T:
        self._thread.join()
        if self._failure is not None:
            raise self._failure
        return self._found  # type: ignore[return-value]

    def _run(self) -> None:
        try:
            self._found = self._work()
        except BaseException as error:
            self._failure = error
