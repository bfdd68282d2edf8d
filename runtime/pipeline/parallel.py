"""Run generators and functions in threads. All threads of the runtime start here, except asyncio's.

``run_streams`` runs several generators in parallel and yields their items in the order of the generators.
``prefetch`` runs one generator ahead of its consumer, and ``map_ordered`` applies a function in several threads; both
are wrappers of ``run_streams``. ``follow`` is for a source that may never send its next item, such as a camera.
``start`` computes one value in the background.

The generators keep the order, hold a bounded number of items, and raise the error of a thread after the items that
came before it. Close a generator instead of dropping it. Closing waits until its threads have ended, except that
``follow`` does not wait for a thread that waits for its source.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

__all__ = ["THREAD_PREFIX", "follow", "map_ordered", "prefetch", "run_streams", "start"]

T = TypeVar("T")
U = TypeVar("U")

# Every thread of the runtime has a name that begins so.
THREAD_PREFIX = "capsule-edge-"
# Seconds between two checks that the threads are still alive. None should ever end without reporting.
_WATCH_S = 1.0
# Seconds between two checks of ``follow`` whether it should stop.
_POLL_S = 0.1


def run_streams(
    streams: Iterable[Iterable[T]],
    *,
    threads: int,
    depth: int,
    ahead: int,
    weigh: Callable[[T], int] = lambda item: 1,
    name: str = "stream",
) -> Generator[T]:
    """Run several generators in parallel and yield their items in the order of the generators.

    Each thread runs one stream at a time, from its first item to its last. An error in a stream is raised after the
    items before it, and ends all streams. When this generator ends or is closed, all threads have ended and every
    stream that was begun is closed, in its own thread.

    Args:
        streams: taken from one at a time, by whichever thread is free.
        threads: number of threads.
        depth: the stream that is being yielded begins no item while this many of its items wait.
        ahead: the later streams begin no item while their waiting items together weigh at least this much.
        weigh: returns the weight of an item, in the unit of ``ahead``.
        name: of the threads, behind ``THREAD_PREFIX``.
    """
    shared = _Streams(iter(streams), depth, ahead, weigh)
    workers = [_launch(shared.work, name) for _ in range(threads)]
    try:
        yield from shared.items(workers)
    finally:
        shared.stop()
        for worker in workers:
            worker.join()
        _close(shared.streams)


def prefetch(items: Iterable[T], *, depth: int, name: str = "prefetch") -> Generator[T]:
    """Yield the same items, made by a thread that is at most ``depth`` items ahead of its consumer.

    ``items`` is closed in that thread when this generator ends or is closed.
    """
    return run_streams([items], threads=1, depth=depth, ahead=1, name=name)


def map_ordered(
    function: Callable[[T], U], items: Iterable[T], *, threads: int, name: str = "map"
) -> Generator[U]:
    """Yield ``function(item)`` for each item, in order, computed by several threads.

    At most two items per thread are taken and not yet yielded. After an item whose function raises, the result of
    no later item is yielded.
    """

    def results() -> Iterator[Iterator[U]]:
        iterator = iter(items)
        try:
            for item in iterator:
                yield map(function, (item,))
        finally:
            _close(iterator)

    return run_streams(results(), threads=threads, depth=1, ahead=threads, name=name)


def follow(
    items: Iterable[T], *, stopped: Callable[[], bool], depth: int, name: str = "follow"
) -> Generator[T]:
    """Yield the items of a source that may never send its next item.

    Soon after ``stopped()`` returns True, yield the items that have come, then end. The thread that takes items from
    the source may still wait for the next one. It is left alone: it ends, and closes ``items``, when that item comes
    or the source gives up. It is a daemon, so it keeps no program from ending.

    Args:
        depth: number of items that may wait.
    """
    ready: queue.Queue[T] = queue.Queue(depth)
    failures: list[BaseException] = []
    left = False

    def fill() -> None:
        iterator = iter(items)
        try:
            try:
                for item in iterator:
                    while not (left or stopped()):
                        try:
                            ready.put(item, timeout=_POLL_S)
                            break
                        except queue.Full:
                            continue
                    else:
                        break
            finally:
                _close(iterator)
        except BaseException as error:  # raised again by the consumer
            failures.append(error)

    thread = _launch(fill, name)
    try:
        while True:
            # Ask before looking into the queue, so that an item that comes between the two is not lost.
            last = stopped() or not thread.is_alive()
            try:
                item = ready.get(timeout=0 if last else _POLL_S)
            except queue.Empty:
                if last:
                    break
                continue
            yield item
        if failures:
            raise failures[0]
    finally:
        left = True
        thread.join(_POLL_S)


def start(work: Callable[[], T], *, name: str) -> Future[T]:
    """Run ``work()`` in a thread and return its future. The thread keeps no program from ending."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # raised again by ``future.result()``
            future.set_exception(error)

    _launch(run, name)
    return future


def _launch(work: Callable[[], None], name: str) -> threading.Thread:
    # A daemon: an interpreter that ends without closing the generator must not wait for a whole recording.
    thread = threading.Thread(target=work, name=THREAD_PREFIX + name, daemon=True)
    thread.start()
    return thread


@dataclass
class _Stream(Generic[T]):
    """The items of one stream that wait to be yielded."""

    ready: deque[T] = field(default_factory=deque)
    weight: int = 0
    over: bool = False
    failure: BaseException | None = None


class _Streams(Generic[T]):
    """The state that the threads of ``run_streams`` share: the streams that were begun and not yet yielded whole."""

    def __init__(
        self, streams: Iterator[Iterable[T]], depth: int, ahead: int, weigh: Callable[[T], int]
    ) -> None:
        self.streams = streams
        self._depth, self._ahead, self._weigh = depth, ahead, weigh
        self._begun: deque[_Stream[T]] = deque()
        # Two conditions of one lock: a new item wakes the consumer alone, free room wakes the threads alone.
        lock = threading.Lock()
        self._item_came, self._room_came = threading.Condition(lock), threading.Condition(lock)
        self._taking = threading.Lock()
        self._stopped = self._ended = False

    def stop(self) -> None:
        """Let the threads end before they begin another item."""
        with self._room_came:
            self._stopped = True
            self._room_came.notify_all()

    def items(self, workers: list[threading.Thread]) -> Generator[T]:
        """Yield the items in order. Raise the failure of a stream after its items."""
        while True:
            with self._item_came:
                self._wait(workers)
                if not self._begun:
                    return
                first = self._begun[0]
                self._room_came.notify_all()
                if not first.ready:
                    self._begun.popleft()
                    if first.failure is not None:
                        raise first.failure
                    continue
                item = first.ready.popleft()
                first.weight -= self._weigh(item)
            yield item

    def work(self) -> None:
        """Run one stream after the other until there is none left. The body of each thread."""
        while (taken := self._take()) is not None:
            items, own = taken
            try:
                self._fill(items, own)
            except BaseException as error:  # raised again by the consumer
                own.failure = error
            with self._room_came:
                own.over = True
                self._notify(own)

    def _take(self) -> tuple[Iterator[T], _Stream[T]] | None:
        """Take the next stream. One thread at a time, so that ``_begun`` keeps the order."""
        with self._taking:
            if self._stopped or self._ended:
                return None
            own: _Stream[T] = _Stream()
            try:
                items = iter(next(self.streams))
            except BaseException as error:
                own.over = True
                if not isinstance(error, StopIteration):
                    own.failure = error
                with self._room_came:
                    self._ended = True
                    self._begun.append(own)
                    self._notify(own)
                return None
            with self._room_came:
                self._begun.append(own)
            return items, own

    def _fill(self, items: Iterator[T], own: _Stream[T]) -> None:
        try:
            if not self._wait_for_room(own):
                return
            for item in items:
                with self._room_came:
                    own.ready.append(item)
                    own.weight += self._weigh(item)
                    self._notify(own)
                if not self._wait_for_room(own):
                    return
        finally:
            _close(items)

    def _wait_for_room(self, own: _Stream[T]) -> bool:
        """Wait until the next item of a stream may be begun. Return False when all is to stop."""
        with self._room_came:
            self._room_came.wait_for(lambda: self._stopped or self._has_room(own))
            return not self._stopped

    def _has_room(self, own: _Stream[T]) -> bool:
        if own is self._begun[0]:
            return len(own.ready) < self._depth
        return sum(stream.weight for stream in self._begun) - self._begun[0].weight < self._ahead

    def _notify(self, own: _Stream[T]) -> None:
        if own is self._begun[0]:
            self._item_came.notify()
        self._room_came.notify_all()

    def _wait(self, workers: list[threading.Thread]) -> None:
        """Wait for an item or the end; raise ``RuntimeError`` when no thread is left that could bring it."""
        while not self._item_came.wait_for(self._can_go_on, timeout=_WATCH_S):
            if not any(worker.is_alive() for worker in workers) and not self._can_go_on():
                raise RuntimeError(f"the threads {workers[0].name!r} ended without reporting a result")

    def _can_go_on(self) -> bool:
        if not self._begun:
            return self._ended
        return bool(self._begun[0].ready) or self._begun[0].over


def _close(iterator: Iterator[object]) -> None:
    close = getattr(iterator, "close", None)
    if close is not None:
        close()
