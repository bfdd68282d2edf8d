"""Run one task in a fresh process, and pass its messages on until it ends."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any

from .limits import Limits

__all__ = ["ReadingProcess", "WaitingProcess"]

# A process that has sent its last message ends by itself within this time, or is killed.
_GRACE_S = 5.0


class ReadingProcess:
    """A process that does one task under limits.

    Args:
        target: main function of the process. It is called with ``arguments`` and with the pipe for its messages, the
            lifeline, the id of this process and the limits.
        arguments: values that can be pickled.
        limits: of the process.

    Example:
        process = ReadingProcess(read_order, (order,), limits)
        for kind, content in process.messages():
            ...
        process.exit_code
    """

    def __init__(self, target: Callable[..., None], arguments: tuple[Any, ...], limits: Limits) -> None:
        # Spawned, never forked: the service has threads, and Windows knows no other way.
        context = multiprocessing.get_context("spawn")
        self._limits = limits
        self._messages, sending = context.Pipe(duplex=False)
        lifeline, self._lifeline = context.Pipe(duplex=False)
        self._process = context.Process(
            target=target,
            args=(*arguments, sending, lifeline, os.getpid(), limits),
            daemon=True,
            name="reading",
        )
        self._closing = threading.Lock()
        self._closed = False
        self._exit_code: int | None = None
        self.timed_out = False
        try:
            self._process.start()
        except BaseException:
            self._messages.close()
            self._lifeline.close()
            raise
        finally:
            sending.close()
            lifeline.close()

    def messages(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the messages until the process ends, is stopped, or its time is over (``timed_out``)."""
        ends_at = time.monotonic() + self._limits.seconds
        try:
            while True:
                left = ends_at - time.monotonic()
                if left <= 0:
                    self.timed_out = True
                    return
                # The pipe is at its end as soon as the process is: its own end was the last one.
                if wait([self._messages], timeout=left):
                    yield _receive(self._messages)
        except (EOFError, OSError):
            return
        finally:
            self.stop(grace_s=0.0 if self.timed_out else _GRACE_S)

    @property
    def exit_code(self) -> int | None:
        """Exit code of the process after ``messages``; the negative number of the signal that ended it."""
        return self._exit_code

    def kill(self) -> None:
        """End the process at once, from any thread. ``messages`` then ends."""
        with self._closing:
            if not self._closed:
                self._process.kill()

    def stop(self, *, grace_s: float = 0.0) -> None:
        """Wait for the process, kill it if it does not end in time, and free its resources.

        Args:
            grace_s: seconds to wait.
        """
        with self._closing:
            if self._closed:
                return
        self._process.join(grace_s)
        with self._closing:
            self._closed = True
            if self._process.exitcode is None:
                self._process.kill()
            self._process.join()
            self._exit_code = self._process.exitcode
            self._process.close()
            for end in (self._messages, self._lifeline):
                with suppress(OSError):
                    end.close()


class WaitingProcess(ReadingProcess):
    """A process that was started ahead of its order, so that the order does not wait for imports.

    Args:
        target: as of ``ReadingProcess``; its first argument is the pipe on which the order comes.
        limits: of the process. Its time counts from ``messages``.

    Example:
        process = WaitingProcess(await_preview_order, limits)
        process.order(PreviewOrder(...))
        for kind, content in process.messages():
            ...
    """

    def __init__(self, target: Callable[..., None], limits: Limits) -> None:
        orders, self._orders = multiprocessing.get_context("spawn").Pipe(duplex=False)
        try:
            super().__init__(target, (orders,), limits)
        except BaseException:
            self._orders.close()
            raise
        finally:
            orders.close()

    def order(self, order: object) -> bool:
        """Send the order. Return False where the process has ended meanwhile: start another one."""
        try:
            self._orders.send(order)
        except OSError:
            return False
        return True

    def stop(self, *, grace_s: float = 0.0) -> None:
        """See ``ReadingProcess.stop``."""
        self._orders.close()
        super().stop(grace_s=grace_s)


def _receive(messages: Connection) -> tuple[str, dict[str, Any]]:
    kind, content = messages.recv()
    return kind, content
