"""Several generators run at once, their items handed on in turn; as ``threads`` does it for one."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from .threads import close, wait

__all__ = ["side_by_side"]

T = TypeVar("T")


def side_by_side(
    streams: Iterable[Iterable[T]], *, lanes: int, depth: int, ahead: int, name: str = "lane"
) -> Generator[T]:
    """The items of the first stream, then those of the second and so on, made by several threads, a stream each.

    The stream whose turn it is is at most ``depth`` items ahead, all behind it together ``ahead``. What a stream
    raises is raised here, behind the items that came before it, and ends all. When this generator ends or is
    closed, the threads have ended and every stream that was begun is closed.
    """
    shared = _Lanes(iter(streams), depth, ahead)
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
    over: bool = False
    failure: BaseException | None = None


class _Lanes(Generic[T]):
    """What the threads share. ``lanes`` are those of the streams that were begun and not yet handed on whole."""

    def __init__(self, streams: Iterator[Iterable[T]], depth: int, ahead: int) -> None:
        self.streams = streams
        self._depth, self._ahead = depth, ahead
        self._lanes: deque[_Lane[T]] = deque()
        self._changed, self._taking = threading.Condition(), threading.Lock()
        self._stopped = self._ended = False

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def items(self, threads: Iterable[threading.Thread]) -> Generator[T]:
        while True:
            with self._changed:
                wait(self._changed, self._has_come, threads)
                if not self._lanes:
                    return
                first = self._lanes[0]
                self._changed.notify_all()
                if not first.ready:
                    self._lanes.popleft()
                    if first.failure is not None:
                        raise first.failure
                    continue
                item = first.ready.popleft()
            yield item

    def work(self) -> None:
        while (lane := self._take()) is not None:
            stream, own = lane
            try:
                self._fill(stream, own)
            except BaseException as error:  # a thread has nobody else to tell
                own.failure = error
            with self._changed:
                own.over = True
                self._changed.notify_all()

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
                with self._changed:
                    self._ended = True
                    self._lanes.append(own)
                    self._changed.notify_all()
                return None
            with self._changed:
                self._lanes.append(own)
            return stream, own

    def _fill(self, stream: Iterator[T], own: _Lane[T]) -> None:
        try:
            for item in stream:
                with self._changed:
                    self._changed.wait_for(lambda: self._stopped or self._has_room(own))
                    if self._stopped:
                        return
                    own.ready.append(item)
                    self._changed.notify_all()
        finally:
            close(stream)

    def _has_room(self, own: _Lane[T]) -> bool:
        if own is self._lanes[0]:
            return len(own.ready) < self._depth
        return sum(len(lane.ready) for lane in self._lanes) - len(self._lanes[0].ready) < self._ahead

    def _has_come(self) -> bool:
        if not self._lanes:
            return self._ended
        return bool(self._lanes[0].ready) or self._lanes[0].over
