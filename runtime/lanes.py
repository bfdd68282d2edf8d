"""Several generators run at once, their items handed on in turn; as ``threads`` does it for one."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from .threads import close, wait

__all__ = ["side_by_side"]

T = TypeVar("T")


def side_by_side(
    streams: Iterable[Iterable[T]],
    *,
    lanes: int,
    depth: int,
    ahead: int,
    weigh: Callable[[T], int] = lambda item: 1,
    allowed: Callable[[], int] | None = None,
    name: str = "lane",
) -> Generator[T]:
    """The items of the first stream, then those of the second and so on, made by several threads, a stream each.

    What a stream raises is raised here, behind the items that came before it, and ends all. When this generator ends or
    is closed, the threads have ended and every stream that was begun is closed.

    Args:
        lanes: threads.
        depth: of the stream whose turn it is no item is begun while so many wait.
        ahead: of those behind it none is begun while what waits of them weighs so much.
        weigh: what an item counts for then.
        allowed: how many of the threads may work now, asked before each item; all where it is None.
    """
    shared = _Lanes(iter(streams), depth, ahead, weigh, allowed or (lambda: lanes))
    threads = [threading.Thread(target=shared.work, name=name, daemon=True) for _ in range(lanes)]
    for thread in threads:
        thread.start()
    try:
        yield from shared.items(threads)
    finally:
        shared.stop()
        for thread in threads:
            thread.join()
        close(shared.streams)


@dataclass
class _Lane(Generic[T]):
    ready: deque[T] = field(default_factory=deque)
    weight: int = 0
    working: bool = False
    over: bool = False
    failure: BaseException | None = None


class _Lanes(Generic[T]):
    """What the threads share. ``lanes`` are those of the streams that were begun and not yet handed on whole."""

    def __init__(
        self,
        streams: Iterator[Iterable[T]],
        depth: int,
        ahead: int,
        weigh: Callable[[T], int],
        allowed: Callable[[], int],
    ) -> None:
        self.streams = streams
        self._depth, self._ahead = depth, ahead
        self._weigh, self._allowed = weigh, allowed
        self._lanes: deque[_Lane[T]] = deque()
        # Two conditions, so that what is handed on wakes only who waits for it.
        lock = threading.Lock()
        self._come, self._room = threading.Condition(lock), threading.Condition(lock)
        self._taking = threading.Lock()
        self._stopped = self._ended = False

    def stop(self) -> None:
        with self._room:
            self._stopped = True
            self._room.notify_all()

    def items(self, threads: Iterable[threading.Thread]) -> Generator[T]:
        while True:
            with self._come:
                wait(self._come, self._has_come, threads)
                if not self._lanes:
                    return
                first = self._lanes[0]
                self._room.notify_all()
                if not first.ready:
                    self._lanes.popleft()
                    if first.failure is not None:
                        raise first.failure
                    continue
                item = first.ready.popleft()
                first.weight -= self._weigh(item)
            yield item

    def work(self) -> None:
        while (lane := self._take()) is not None:
            stream, own = lane
            try:
                self._fill(stream, own)
            except BaseException as error:  # a thread has nobody else to tell
                own.failure = error
            with self._room:
                own.working, own.over = False, True
                self._tell(own)

    def _take(self) -> tuple[Iterator[T], _Lane[T]] | None:
        """The next stream; one thread at a time, so that the lanes follow the order."""
        with self._taking:
            if self._stopped or self._ended:
                return None
            own: _Lane[T] = _Lane()
            try:
                stream = iter(next(self.streams))
            except BaseException as error:
                own.over = True
                if not isinstance(error, StopIteration):
                    own.failure = error
                with self._room:
                    self._ended = True
                    self._lanes.append(own)
                    self._tell(own)
                return None
            with self._room:
                self._lanes.append(own)
            return stream, own

    def _fill(self, stream: Iterator[T], own: _Lane[T]) -> None:
        try:
            with self._room:
                if not self._goes_on(own):
                    return
            for item in stream:
                with self._room:
                    own.ready.append(item)
                    own.weight += self._weigh(item)
                    own.working = False
                    self._tell(own)
                    if not self._goes_on(own):
                        return
        finally:
            close(stream)

    def _goes_on(self, own: _Lane[T]) -> bool:
        """Wait until the next item of a stream may be begun; the lock is held."""
        self._room.wait_for(lambda: self._stopped or (self._may_work() and self._has_room(own)))
        own.working = not self._stopped
        return own.working

    def _tell(self, own: _Lane[T]) -> None:
        if own is self._lanes[0]:
            self._come.notify()
        self._room.notify_all()

    def _may_work(self) -> bool:
        return sum(lane.working for lane in self._lanes) < max(1, self._allowed())

    def _has_room(self, own: _Lane[T]) -> bool:
        if own is self._lanes[0]:
            return len(own.ready) < self._depth
        return sum(lane.weight for lane in self._lanes) - self._lanes[0].weight < self._ahead

    def _has_come(self) -> bool:
        if not self._lanes:
            return self._ended
        return bool(self._lanes[0].ready) or self._lanes[0].over
