"""The errors of readings. Each names a cause that the reader can do something about."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from capsule_edge.runtime.errors import CapsuleEdgeError, UsageError

from ..store import ConflictError, NotFoundError

__all__ = ["ReadingConflictError", "ReadingNotFoundError", "ReadingValueError", "ResultDamagedError"]


class ReadingValueError(UsageError):
    """A value of a decision, landmark, range or text is not allowed."""

    code = "invalid"


class ResultDamagedError(CapsuleEdgeError):
    """The files of a result cannot be read. No value of the request is at fault: it can be sent again later."""

    code = "result_damaged"


class ReadingNotFoundError(NotFoundError):
    """There is no such study, result, reading, suggestion or landmark."""


class ReadingConflictError(ConflictError):
    """The state has changed since the caller last saw it, or does not allow the action.

    Attributes:
        current: the state as it is now, JSON values; None where there is none to show.
    """

    def __init__(self, message: str, *, hint: str = "", current: Mapping[str, Any] | None = None) -> None:
        super().__init__(message, hint=hint)
        self.current = current
