"""Serve the requests that ``framework_process`` sends to a child. Errors are replies."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import IO, Any

from capsule_edge.runtime.errors import CapsuleEdgeError, ModelError, PackageError

from ..facts import Floats
from .framework_process import read_message, write_message

__all__ = ["serve_own_stdout", "serve_requests"]

Handler = Callable[[dict[str, Any], Floats | None], tuple[dict[str, Any], Floats | None]]
"""Answers a request and its batch with a reply and a batch."""


def serve_requests(handle: Handler, requests: IO[bytes], replies: IO[bytes], framework: str) -> None:
    """Serve requests until the stream ends.

    Args:
        handle: answers one request.
        requests: the stream of requests.
        replies: the stream of replies.
        framework: the name of the framework, for messages.
    """
    while message := read_message(requests):
        request, batch = message
        answer: Floats | None = None
        try:
            reply, answer = handle(request, batch)
        except CapsuleEdgeError as error:
            reply = _error(error)
        except ModuleNotFoundError as error:
            hint = "pip install 'capsule-edge[train]'"
            reply = _error(PackageError(f"the Python package {error.name} is not installed", hint=hint))
        except Exception as error:  # frameworks raise exceptions without a common base class
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            path = request.get("path", "the model")
            reply = _error(ModelError(f"{path} cannot be used with its framework ({framework}): {reason}"))
        write_message(replies, reply, answer)


def serve_own_stdout(serve: Callable[[IO[bytes], IO[bytes]], None]) -> None:
    """Serve stdin. Frameworks print on stdout as they like, so replies go to a copy of it that they do not know."""
    with os.fdopen(os.dup(1), "wb") as own:
        os.dup2(2, 1)
        serve(sys.stdin.buffer, own)


def _error(error: CapsuleEdgeError) -> dict[str, Any]:
    kind = type(error).__name__
    return {"error": {"kind": kind, "message": error.message, "hint": error.hint}}
