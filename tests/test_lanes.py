"""Generators run side by side: handed on in turn, bounded, errors in their place, nothing left running."""

from __future__ import annotations

import random
import threading
import time
import zlib
from collections.abc import Iterator

import pytest

from capsule_edge.runtime.lanes import side_by_side


def no_lane_left() -> bool:
    return not any(thread.name == "lane" for thread in threading.enumerate())


@pytest.mark.parametrize("lanes", [1, 2, 5])
@pytest.mark.parametrize("depth", [1, 3])
def test_the_order_is_that_of_the_streams(lanes: int, depth: int) -> None:
    draw = random.Random(lanes + depth)
    lengths = [draw.choice((0, 1, 2, 7, 30)) for _ in range(60)]

    def stream(number: int, length: int) -> Iterator[tuple[int, int]]:
        for item in range(length):
            if draw.random() < 0.05:
                time.sleep(0)  # hand the processor over somewhere
            yield number, item

    streams = (stream(number, length) for number, length in enumerate(lengths))
    got = list(side_by_side(streams, lanes=lanes, depth=depth, ahead=depth))
    assert got == [(number, item) for number, length in enumerate(lengths) for item in range(length)]
    assert no_lane_left()


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

    items = side_by_side(map(stream, range(3)), lanes=3, depth=1, ahead=4)
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
    assert no_lane_left()


@pytest.mark.parametrize("lanes", [1, 3])
def test_an_error_comes_behind_the_items_before_it(lanes: int) -> None:
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
        got.extend(side_by_side(map(stream, range(100)), lanes=lanes, depth=2, ahead=2))
    assert got == list(range(30))
    assert closed[:1] == [0]
    assert {0, 1, 2} <= set(closed) <= set(range(6))
    assert no_lane_left()


def test_an_error_in_the_source_of_streams_is_raised() -> None:
    def streams() -> Iterator[list[int]]:
        yield [1, 2]
        raise OSError("source")

    got: list[int] = []
    with pytest.raises(OSError, match="source"):
        got.extend(side_by_side(streams(), lanes=2, depth=1, ahead=1))
    assert got == [1, 2]


def test_closing_early_ends_all() -> None:
    closed: list[int] = []

    def stream(number: int) -> Iterator[int]:
        try:
            yield from range(1000)
        finally:
            closed.append(number)

    items = side_by_side(map(stream, range(10)), lanes=3, depth=2, ahead=2)
    assert next(items) == 0
    items.close()
    assert 0 in closed
    assert no_lane_left()


def test_heavy_items_of_streams_behind_are_fewer() -> None:
    release, third, fourth = threading.Event(), threading.Event(), threading.Event()

    def first() -> Iterator[int]:
        assert release.wait(10)
        yield 0

    def second() -> Iterator[int]:
        for at in range(50):
            (third if at == 2 else fourth if at == 3 else threading.Event()).set()
            yield 10

    items = side_by_side([first(), second()], lanes=2, depth=1, ahead=25, weigh=lambda item: item)
    got: list[int] = []
    taker = threading.Thread(target=lambda: got.extend(items))
    taker.start()
    # 20 is less than 25, 30 is not.
    assert third.wait(10)
    assert not fourth.wait(0.05)
    release.set()
    taker.join()
    assert got == [0] + [10] * 50


@pytest.mark.parametrize("most", [1, 2])
def test_no_more_threads_work_at_once_than_are_allowed(most: int) -> None:
    working, seen, lock = [0], [0], threading.Lock()

    def stream(number: int) -> Iterator[int]:
        for item in range(20):
            with lock:
                working[0] += 1
                seen[0] = max(seen[0], working[0])
            zlib.crc32(bytes(1 << 22))  # work that hands the interpreter over
            with lock:
                working[0] -= 1
            yield item

    got = list(side_by_side(map(stream, range(6)), lanes=4, depth=2, ahead=8, allowed=lambda: most))
    assert got == [*range(20)] * 6
    assert seen[0] == most
