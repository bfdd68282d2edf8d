"""Run the reader for an event loop: the work runs in a thread, and a cancelled task leaves no thread behind."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Generator,
    Iterable,
    Iterator,
)
from contextlib import suppress
from typing import Generic, TypeVar

__all__ = ["iterate", "run"]

T = TypeVar("T")
U = TypeVar("U")


class _Stopped(Exception):  # noqa: N818 - not a fault: the task was cancelled
    """Ends the work where it next asks whether to stop."""


async def run(work: Callable[[Callable[[], bool]], T]) -> T:
    """Run ``work(cancel)`` in a thread and return its result.

    Args:
        work: calls ``cancel()`` now and then. ``cancel`` raises once the task is cancelled, and the task ends when the
            thread has ended.
    """
    stopping = threading.Event()

    def cancel() -> bool:
        if stopping.is_set():
            raise _Stopped
        return False

    return await _finish(asyncio.ensure_future(asyncio.to_thread(work, cancel)), stopping.set)


async def iterate(
    items: Iterable[T] | AsyncIterable[T], chain: Callable[[Iterable[T]], Generator[U]]
) -> AsyncGenerator[U]:
    """Yield what ``chain`` makes of the items, one step at a time in a thread.

    When the task is cancelled or the generator is closed, the chain is closed first. A chain that waits for an item of
    the event loop is woken; a chain that waits for an item of a plain iterable ends when that item has come.

    Args:
        items: may be asynchronous.
        chain: a generator function over the items.
    """
    if isinstance(items, AsyncIterable):
        source = _Source(aiter(items))
        answers, stop = chain(source.pull()), source.stop
    else:
        answers, stop = chain(items), _nothing_to_wake
    nothing: list[U] = []
    try:
        while True:
            step = asyncio.ensure_future(asyncio.to_thread(_step, answers, nothing))
            found = await _finish(step, stop)
            if found is nothing:
                return
            yield found[0]
    finally:
        await _finish(asyncio.ensure_future(asyncio.to_thread(answers.close)), stop)


def _nothing_to_wake() -> None:
    pass


def _step(answers: Generator[U], nothing: list[U]) -> list[U]:
    # A future cannot hold a StopIteration.
    for answer in answers:
        return [answer]
    return nothing


async def _finish(future: asyncio.Future[T], stop: Callable[[], None]) -> T:
    """Return the future's result. When the task is cancelled, call ``stop`` and wait until the thread has ended."""
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        stop()
        while not future.done():
            with suppress(asyncio.CancelledError, Exception):
                await asyncio.shield(future)
        if not future.cancelled():
            future.exception()  # marks it as retrieved: an error after the cancelling concerns nobody
        raise


class _Source(Generic[T]):
    """Bring the items of an asynchronous iterator to a thread."""

    def __init__(self, items: AsyncIterator[T]) -> None:
        self._items = items
        self._loop = asyncio.get_running_loop()
        self._waiting: concurrent.futures.Future[list[T]] | None = None
        self._stopped = False
        self._asking = threading.Lock()

    def pull(self) -> Iterator[T]:
        while True:
            # Under the lock: an item requested just after the stop would be waited for without end.
            with self._asking:
                if self._stopped:
                    return
                waiting = self._waiting = asyncio.run_coroutine_threadsafe(self._next(), self._loop)
            try:
                found = waiting.result()
            except concurrent.futures.CancelledError:
                return
            if not found:
                return
            yield found[0]

    def stop(self) -> None:
        with self._asking:
            self._stopped = True
            if self._waiting is not None:
                self._waiting.cancel()

    async def _next(self) -> list[T]:
        async for item in self._items:
            return [item]
        return []
