"""Turn SIGTERM into an exception, so that a program which it ends cleans up as after Ctrl-C.

Only the command line uses this. ``Reader`` and the rest of the package install no signal handler.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from .errors import Interrupted, Terminated

__all__ = ["TerminationSignal", "as_interrupted", "catch_termination"]


class TerminationSignal(KeyboardInterrupt):
    """SIGTERM has arrived. A ``KeyboardInterrupt``, so that all code that cleans up after Ctrl-C cleans up here too."""


@contextmanager
def catch_termination() -> Iterator[None]:
    """Raise ``TerminationSignal`` at the first SIGTERM while the block runs; a second one ends the process at once.

    Nothing is installed outside the main thread, where SIGTERM is ignored, and where the program has a handler of
    its own. Windows ends a process without SIGTERM, so there the block only sees one that the process raises itself.
    """

    def stop(_number: int, _frame: FrameType | None) -> None:
        # Whoever asks twice does not want to wait for the clean-up. The system's own action needs no interpreter.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise TerminationSignal

    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def as_interrupted(error: BaseException, message: str = "", *, hint: str = "") -> Interrupted:
    """Return the error that ends the program after ``error``: ``Terminated`` after SIGTERM, else ``Interrupted``.

    Args:
        error: a ``KeyboardInterrupt``, or an exception that was raised from one.
        message: what became of the work, to follow "interrupted".
        hint: what to do next.
    """
    after = f", {message}" if message else ""
    if any(isinstance(each, TerminationSignal) for each in (error, error.__cause__)):
        return Terminated(f"interrupted by SIGTERM{after}", hint=hint)
    return Interrupted(f"interrupted{after}", hint=hint)
