"""Answer errors as JSON: ``{"error": {"code", "message", "hint"}}`` with the status that fits."""

from __future__ import annotations

import errno
import json
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.responses import Response

from capsule_edge.runtime.errors import (
    BackendError,
    CapsuleEdgeError,
    InputError,
    ModelError,
    OutputError,
    PackageError,
    UsageError,
)

from ..readings import ResultDamagedError
from ..store import (
    ConflictError,
    NotFoundError,
    StoreError,
    StoreFullError,
)

__all__ = [
    "Problem",
    "RequestError",
    "add_problem_handlers",
    "answer_error",
    "answer_problem",
    "problem_bytes",
    "status_of",
]

# The first class that fits decides; a class comes before its parents.
_STATUSES: tuple[tuple[type[CapsuleEdgeError], int], ...] = (
    (NotFoundError, 404),
    (ConflictError, 409),
    (StoreFullError, 507),
    (StoreError, 503),
    (ResultDamagedError, 503),
    (UsageError, 422),
    (InputError, 422),
    (ModelError, 422),
    (BackendError, 422),
    (PackageError, 501),
    (OutputError, 503),
)
_CODES = {
    400: "invalid",
    401: "token",
    403: "forbidden",
    404: "not_found",
    405: "method",
    413: "too_large",
    415: "media_type",
}
_MOST_SHOWN = 300
# Codes of 503 whose cause passes by itself: another process holds the database, or newer requests went first.
_PASSING = frozenset({"store_busy", "superseded"})
_RETRY_AFTER_S = 1


class ProblemLines(BaseModel):
    """An error: a word for programs that does not change, one line for people, and the next step (may be empty)."""

    code: str
    message: str
    hint: str


class Problem(BaseModel):
    """The answer to a request that failed."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "error": {
                        "code": "not_found",
                        "message": "there is no such study",
                        "hint": "it may have been deleted; reload the list",
                    }
                }
            ]
        }
    )

    error: ProblemLines
    current: Any = Field(
        None, description="the state that the request was in conflict with, where there is one"
    )


class RequestError(CapsuleEdgeError):
    """An error of a request, with its HTTP status."""

    def __init__(self, status: int, code: str, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status, self.code = status, code
        # JSON values that go along with the answer: the state that the request was in conflict with.
        self.current: Any = None


def status_of(error: CapsuleEdgeError) -> int:
    """Return the HTTP status of an error: its attribute ``status``, or that of its class."""
    status = getattr(error, "status", None)
    if isinstance(status, int):
        return status
    if isinstance(error, OutputError) and _is_full(error):
        return 507
    return next((status for kind, status in _STATUSES if isinstance(error, kind)), 422)


def _is_full(error: BaseException) -> bool:
    cause = error.__cause__
    return isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT)


def problem_bytes(code: str, message: str, hint: str = "", **more: Any) -> bytes:
    """Return the JSON of an error, in one line.

    Args:
        code: a word for programs.
        message: one line for people.
        hint: the next step.
        more: further members beside ``error``.
    """
    lines = {"code": code, "message": " ".join(message.split()), "hint": " ".join(hint.split())}
    # Text of a request may hold lone surrogates, which UTF-8 cannot carry.
    return json.dumps({"error": lines, **more}, ensure_ascii=False).encode("utf-8", "replace")


def answer_problem(
    status: int,
    code: str,
    message: str,
    hint: str = "",
    headers: Mapping[str, str] | None = None,
    **more: Any,
) -> Response:
    """Return the answer for an error; arguments as in ``problem_bytes``."""
    return Response(
        problem_bytes(code, message, hint, **more), status, headers, media_type="application/json"
    )


def answer_error(error: CapsuleEdgeError) -> Response:
    """Return the answer for an error of the package. Its attribute ``current``, if it has one, goes along."""
    current = getattr(error, "current", None)
    more = {} if current is None else {"current": current}
    headers = {"Retry-After": str(_RETRY_AFTER_S)} if error.code in _PASSING else None
    return answer_problem(status_of(error), error.code, error.message, error.hint, headers, **more)


def add_problem_handlers(app: FastAPI) -> None:
    """Make the app answer all errors in this form."""

    @app.exception_handler(CapsuleEdgeError)
    def _ours(_: Request, error: CapsuleEdgeError) -> Response:
        return answer_error(error)

    @app.exception_handler(RequestValidationError)
    def _invalid(_: Request, error: RequestValidationError) -> Response:
        return answer_problem(422, "invalid", _first_fault(error), "see /v1/openapi.json for what is allowed")

    @app.exception_handler(HTTPException)
    def _http(_: Request, error: HTTPException) -> Response:
        code = _CODES.get(error.status_code, "error")
        return answer_problem(error.status_code, code, str(error.detail), headers=error.headers)


def _first_fault(error: RequestValidationError) -> str:
    """Return the first fault in one line: the place, the fault, and how many others there are."""
    faults = error.errors()
    if not faults:
        return "the request is not valid"
    place = ".".join(str(part) for part in faults[0].get("loc", ()))[:_MOST_SHOWN]
    message = str(faults[0].get("msg", "is not valid"))[:_MOST_SHOWN]
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return f"{place}: {message}{more}"
