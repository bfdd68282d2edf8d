"""Open and check a model file in a process of its own: an engine parses it in native code, and it may be harmful."""

from __future__ import annotations

from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from capsule_edge.runtime.errors import ModelError

from ..models import CheckedModel, check_model
from .limits import Limits
from .process import ReadingProcess
from .worker import run_limited

__all__ = ["check_model_apart"]


def check_model_apart(path: Path, limits: Limits) -> CheckedModel:
    """Return the facts of a model file as ``check_model`` does, found out by a process under limits.

    Args:
        path: of the file.
        limits: of the process.

    Raises:
        ModelError: the file is no model, no engine can run it, or its check ends the process.
    """
    process = ReadingProcess(_check, (path,), limits)
    for kind, content in process.messages():
        if kind == "done":
            return CheckedModel(**content)
        raise ModelError(content["message"], hint=content["hint"])
    reason = "took too long" if process.timed_out else f"ended its process ({process.exit_code})"
    raise ModelError(
        f"the check of the model {reason}", hint="the file may be damaged, or larger than allowed"
    )


def _check(path: Path, messages: Connection, lifeline: Connection, parent: int, limits: Limits) -> None:
    """Check a model and send its facts; the main function of the process."""

    def work() -> None:
        try:
            checked = check_model(path)
        except MemoryError:
            amount = f"{limits.memory_bytes / 2**30:.1f} GiB"
            raise ModelError(
                f"the model needs more than the {amount} of memory that are allowed",
                hint="raise --job-memory, or use a smaller model",
            ) from None
        facts: dict[str, Any] = {name: getattr(checked, name) for name in CheckedModel.__slots__}
        messages.send(("done", facts))

    run_limited(work, path, "the model", messages, lifeline, parent, limits)
