"""The reader in an event loop: the work in a thread beside it, and a cancelled task leaves none behind."""

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
    """Leaves the work at the next place where it asks whether to go on."""


async def run(work: Callable[[Callable[[], bool]], T]) -> T:
    """``work(cancel)`` in a thread; ``cancel`` is to be asked now and then whether to stop.

    When the task is cancelled, ``cancel`` raises, and the task ends when the thread has.
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
    """What ``chain`` makes of the items, which may come from the loop, one step at a time in a thread.

    When the task is cancelled or the generator closed, the chain is closed before it ends. A chain that waits for
    an item of the loop is woken; one that waits for an item of its own ends when that has come.
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
    # A StopIteration cannot leave a thread's future.
    for answer in answers:
        return [answer]
    return nothing


async def _finish(future: asyncio.Future[T], stop: Callable[[], None]) -> T:
    """The future's result; when the task is cancelled, ``stop`` is called and the thread's end awaited."""
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        stop()
        while not future.done():
            with suppress(asyncio.CancelledError, Exception):
                await asyncio.shield(future)
        if not future.cancelled():
            future.exception()  # seen; what happened after the cancelling is nobody's
        raise


class _Source(Generic[T]):
    """Items of an asynchronous iterator for a thread."""

    def __init__(self, items: AsyncIterator[T]) -> None:
        self._items = items
        self._loop = asyncio.get_running_loop()
        self._waiting: concurrent.futures.Future[list[T]] | None = None
        self._stopped = False
        self._asking = threading.Lock()

    def pull(self) -> Iterator[T]:
        while True:
            # Together: an item asked for just after the stop would be waited for without end.
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
