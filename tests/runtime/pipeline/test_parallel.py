"""Ordered parallel work: items in order, a bounded number of waiting items, errors raised, threads always joined."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from thread_checks import no_thread_left

from capsule_edge.runtime.errors import InputError
from capsule_edge.runtime.pipeline import parallel, start
from capsule_edge.runtime.pipeline.parallel import THREAD_PREFIX, _Streams, map_ordered, prefetch, run_streams

pytestmark = pytest.mark.quick


class BlockedThreads:
    """The threads of ``run_streams`` that have found no room for another item and wait for the consumer."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._blocked: set[int] = set()
        self._changed = threading.Condition()
        has_room = _Streams._has_room

        def watched(streams: _Streams[Any], own: Any) -> bool:
            room = has_room(streams, own)
            with self._changed:
                (self._blocked.discard if room else self._blocked.add)(threading.get_ident())
                self._changed.notify_all()
            return room

        monkeypatch.setattr(_Streams, "_has_room", watched)

    def wait_for(self, count: int, made: Callable[[], bool] = lambda: True) -> None:
        """Wait until this number of threads is blocked after they made what they may. Fail after ten seconds."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self._blocked) == count and made(), timeout=10)


@pytest.fixture
def blocked(monkeypatch: pytest.MonkeyPatch) -> BlockedThreads:
    return BlockedThreads(monkeypatch)


def test_prefetch_keeps_order_and_raises_after_the_items() -> None:
    def items() -> Iterator[int]:
        yield from range(100)
        raise InputError("at the end")

    got: list[int] = []
    with pytest.raises(InputError, match="at the end"):
        got.extend(prefetch(items(), depth=3))
    assert got == list(range(100))
    assert no_thread_left()


def test_prefetch_makes_at_most_depth_items_ahead(blocked: BlockedThreads) -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for item in range(1000):
            made.append(item)
            yield item

    ahead = prefetch(items(), depth=3)
    for taken in range(50):
        assert next(ahead) == taken
        # The thread makes items until three wait, and no further one.
        blocked.wait_for(1, lambda most=taken + 4: len(made) == most)
    ahead.close()
    assert no_thread_left()


def test_prefetch_closes_its_source_in_its_own_thread() -> None:
    closed_by = []

    def items() -> Iterator[int]:
        try:
            yield from range(1000)
        finally:
            closed_by.append(threading.current_thread().name)

    ahead = prefetch(items(), depth=1)
    next(ahead)
    ahead.close()
    assert closed_by == [THREAD_PREFIX + "prefetch"]


def test_map_ordered_keeps_the_order_when_the_first_item_is_ready_last() -> None:
    turn = threading.Barrier(3)

    def answer(item: int) -> int:
        if item < 3:
            # All three have begun before any is done, and the first is done last.
            turn.wait(timeout=10)
            if item == 0:
                assert later.acquire(timeout=10)
        if item == 2:
            later.release()
        return item * item

    later = threading.Semaphore(0)
    assert list(map_ordered(answer, range(50), threads=3)) == [item * item for item in range(50)]
    assert no_thread_left()


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_map_ordered_raises_after_the_results_before_and_takes_no_more_items(workers: int) -> None:
    taken: list[int] = []
    closed: list[bool] = []

    def items() -> Iterator[int]:
        try:
            for item in range(1000):
                taken.append(item)
                yield item
        finally:
            closed.append(True)

    def answer(item: int) -> int:
        if item == 20:
            raise InputError("twenty is strange")
        return item

    got: list[int] = []
    with pytest.raises(InputError, match="twenty"):
        got.extend(map_ordered(answer, items(), threads=workers))
    assert got == list(range(20))
    # Each worker has taken at most two items that are not yielded yet.
    assert len(taken) <= 21 + 2 * workers
    assert closed == [True]
    assert no_thread_left()


@pytest.mark.parametrize("stage", ["prefetch", "map_ordered"])
def test_a_thread_that_ends_without_a_result_raises(stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading.Thread, "run", lambda _self: None)
    monkeypatch.setattr(parallel, "_WATCH_S", 0.01)
    waiting = prefetch(range(3), depth=1) if stage == "prefetch" else map_ordered(str, range(3), threads=2)
    with pytest.raises(RuntimeError, match="ended without reporting"):
        list(waiting)


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("depth", [1, 3])
def test_items_come_in_the_order_of_the_streams(threads: int, depth: int) -> None:
    draw = random.Random(threads + depth)
    lengths = [draw.choice((0, 1, 2, 7, 30)) for _ in range(60)]

    def stream(number: int, length: int) -> Iterator[tuple[int, int]]:
        for item in range(length):
            if draw.random() < 0.05:
                time.sleep(0)  # let another thread run
            yield number, item

    streams = (stream(number, length) for number, length in enumerate(lengths))
    got = list(run_streams(streams, threads=threads, depth=depth, ahead=depth))
    assert got == [(number, item) for number, length in enumerate(lengths) for item in range(length)]
    assert no_thread_left()


def test_streams_run_at_once_and_make_a_bounded_number_of_items(blocked: BlockedThreads) -> None:
    made = [0, 0, 0]
    release = threading.Event()

    def stream(number: int) -> Iterator[int]:
        for item in range(50):
            made[number] += 1
            if number == 0:
                assert release.wait(10)
            yield item

    items = run_streams(map(stream, range(3)), threads=3, depth=1, ahead=4)
    got: list[int] = []
    taker = threading.Thread(target=lambda: got.extend(items))
    taker.start()
    # The first stream has yielded nothing, and the two behind it run until four of their items wait. One of the
    # two may have begun a fifth while the other made the fourth.
    blocked.wait_for(2)
    assert made[0] == 1
    assert sum(made[1:]) in (4, 5)
    release.set()
    taker.join()
    assert got == [*range(50)] * 3
    assert no_thread_left()


@pytest.mark.parametrize("threads", [1, 3])
def test_an_error_is_raised_after_the_items_before_it(threads: int) -> None:
    closed: list[int] = []

    def stream(number: int) -> Iterator[int]:
        try:
            yield from range(10 * number, 10 * number + 10)
            if number == 2:
                raise ValueError("stream 2")
            if number == 3:
                raise KeyError("stream 3")
        finally:
            closed.append(number)

    got: list[int] = []
    with pytest.raises(ValueError, match="stream 2"):
        got.extend(run_streams(map(stream, range(100)), threads=threads, depth=2, ahead=2))
    assert got == list(range(30))
    assert closed[:1] == [0]
    assert {0, 1, 2} <= set(closed) <= set(range(6))
    assert no_thread_left()


def test_an_error_in_the_source_of_streams_is_raised() -> None:
    def streams() -> Iterator[list[int]]:
        yield [1, 2]
        raise OSError("source")

    got: list[int] = []
    with pytest.raises(OSError, match="source"):
        got.extend(run_streams(streams(), threads=2, depth=1, ahead=1))
    assert got == [1, 2]


def test_closing_early_closes_the_begun_streams() -> None:
    closed: list[int] = []

    def stream(number: int) -> Iterator[int]:
        try:
            yield from range(1000)
        finally:
            closed.append(number)

    items = run_streams(map(stream, range(10)), threads=3, depth=2, ahead=2)
    assert next(items) == 0
    items.close()
    assert 0 in closed
    assert no_thread_left()


def test_waiting_items_are_bounded_by_their_weight(blocked: BlockedThreads) -> None:
    release = threading.Event()
    made: list[int] = []

    def first() -> Iterator[int]:
        assert release.wait(10)
        yield 0

    def second() -> Iterator[int]:
        for at in range(50):
            made.append(at)
            yield 10

    items = run_streams([first(), second()], threads=2, depth=1, ahead=20, weigh=lambda item: item)
    got: list[int] = []
    taker = threading.Thread(target=lambda: got.extend(items))
    taker.start()
    # Two items weigh 20, which is all that may wait.
    blocked.wait_for(1)
    assert made == [0, 1]
    release.set()
    taker.join()
    assert got == [0] + [10] * 50


def test_a_value_is_computed_in_the_background() -> None:
    release = threading.Event()

    def work() -> str:
        assert release.wait(10)
        return threading.current_thread().name

    future = start(work, name="digest")
    assert not future.done()
    release.set()
    assert future.result(timeout=10) == THREAD_PREFIX + "digest"


def test_an_error_in_the_background_is_raised_by_the_result() -> None:
    def work() -> None:
        raise InputError("gone")

    future = start(work, name="digest")
    for _ in range(2):
        with pytest.raises(InputError, match="gone"):
            future.result(timeout=10)
