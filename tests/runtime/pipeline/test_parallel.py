"""Threads behind bounded queues: in order, no further ahead than they may, always joined."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator

import pytest
from thread_checks import no_thread_left

from capsule_edge.runtime.errors import InputError
from capsule_edge.runtime.pipeline import start
from capsule_edge.runtime.pipeline.parallel import THREAD_PREFIX, map_ordered, prefetch, run_streams

pytestmark = pytest.mark.quick


def test_prefetch_keeps_order_and_raises_behind_the_items() -> None:
    def items() -> Iterator[int]:
        yield from range(100)
        raise InputError("at the end")

    got: list[int] = []
    with pytest.raises(InputError, match="at the end"):
        got.extend(prefetch(items(), depth=3))
    assert got == list(range(100))
    assert no_thread_left()


def test_prefetch_runs_no_further_ahead_than_it_may() -> None:
    leads: list[int] = []
    reached = threading.Semaphore(0)
    taken = 0

    def items() -> Iterator[int]:
        for item in range(1000):
            leads.append(item - taken)
            reached.release()
            yield item

    for _ in prefetch(items(), depth=3):
        if taken == 0:
            # One was taken, two wait and one is in the maker's hand: it comes to the fourth and stands still.
            for _ in range(4):
                assert reached.acquire(timeout=10)
            assert not reached.acquire(timeout=0.1)
        taken += 1
    # Counted when an item is made, before the one being handed over is counted as taken.
    assert max(leads) == 3
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


def test_map_ordered_keeps_the_order_whatever_each_item_takes() -> None:
    turn = threading.Barrier(3)

    def answer(item: int) -> int:
        if item < 3:
            # All three are at work before any is done, and the first is done last.
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
def test_map_ordered_raises_behind_the_answers_before_and_takes_no_more(workers: int) -> None:
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
    # Each worker has at most two items that nobody was given yet.
    assert len(taken) <= 21 + 2 * workers
    assert closed == [True]
    assert no_thread_left()


@pytest.mark.parametrize("stage", ["prefetch", "map_ordered"])
def test_a_thread_that_ends_without_a_word_is_no_hang(stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading.Thread, "run", lambda _self: None)
    waiting = prefetch(range(3), depth=1) if stage == "prefetch" else map_ordered(str, range(3), threads=2)
    with pytest.raises(RuntimeError, match="ended without reporting"):
        list(waiting)


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("depth", [1, 3])
def test_the_order_is_that_of_the_streams(threads: int, depth: int) -> None:
    draw = random.Random(threads + depth)
    lengths = [draw.choice((0, 1, 2, 7, 30)) for _ in range(60)]

    def stream(number: int, length: int) -> Iterator[tuple[int, int]]:
        for item in range(length):
            if draw.random() < 0.05:
                time.sleep(0)  # hand the processor over somewhere
            yield number, item

    streams = (stream(number, length) for number, length in enumerate(lengths))
    got = list(run_streams(streams, threads=threads, depth=depth, ahead=depth))
    assert got == [(number, item) for number, length in enumerate(lengths) for item in range(length)]
    assert no_thread_left()


def test_streams_are_at_work_at_once_and_hold_no_more_than_they_may() -> None:
    began = threading.Event()
    made, lock = [0, 0, 0], threading.Lock()
    release, four, six = threading.Event(), threading.Event(), threading.Event()

    def stream(number: int) -> Iterator[int]:
        for item in range(50):
            with lock:
                made[number] += 1
                behind = sum(made[1:])
            (four if behind == 4 else six if behind == 6 else threading.Event()).set()
            if number == 0:
                began.set()
                assert release.wait(10)
            yield item

    items = run_streams(map(stream, range(3)), threads=3, depth=1, ahead=4)
    got: list[int] = []
    taker = threading.Thread(target=lambda: got.extend(items))
    taker.start()
    # The first has handed nothing on, and others are running.
    assert began.wait(10)
    # Four wait; the other of the two may have begun one while the fourth was made.
    assert four.wait(10)
    assert not six.wait(0.05)
    release.set()
    taker.join()
    assert got == [*range(50)] * 3
    assert no_thread_left()


@pytest.mark.parametrize("threads", [1, 3])
def test_an_error_comes_behind_the_items_before_it(threads: int) -> None:
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


def test_closing_early_ends_all() -> None:
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


def test_heavy_items_of_streams_behind_are_fewer() -> None:
    release, third, fourth = threading.Event(), threading.Event(), threading.Event()

    def first() -> Iterator[int]:
        assert release.wait(10)
        yield 0

    def second() -> Iterator[int]:
        for at in range(50):
            (third if at == 2 else fourth if at == 3 else threading.Event()).set()
            yield 10

    items = run_streams([first(), second()], threads=2, depth=1, ahead=25, weigh=lambda item: item)
    got: list[int] = []
    taker = threading.Thread(target=lambda: got.extend(items))
    taker.start()
    # 20 is less than 25, 30 is not.
    assert third.wait(10)
    assert not fourth.wait(0.05)
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
