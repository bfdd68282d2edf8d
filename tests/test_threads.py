"""Threads behind bounded queues: in order, no further ahead than they may, always joined."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from thread_checks import no_thread_left

from capsule_edge.runtime.errors import InputError
from capsule_edge.runtime.threads import prefetch, spread


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

    for _ in prefetch(items(), depth=2):
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
    assert closed_by == ["prefetch"]


def test_spread_keeps_the_order_whatever_each_item_takes() -> None:
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
    assert list(spread(answer, range(50), workers=3)) == [item * item for item in range(50)]
    assert no_thread_left()


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_spread_raises_behind_the_answers_before_and_takes_no_more(workers: int) -> None:
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
        got.extend(spread(answer, items(), workers=workers))
    assert got == list(range(20))
    # Each worker has at most two items that nobody was given yet.
    assert len(taken) <= 21 + 2 * workers
    assert closed == [True]
    assert no_thread_left()


def test_spread_lets_no_more_work_than_it_may() -> None:
    at_work, most, lock = 0, 0, threading.Lock()

    def answer(item: int) -> int:
        nonlocal at_work, most
        with lock:
            at_work += 1
            most = max(most, at_work)
        threading.Event().wait(0.002)
        with lock:
            at_work -= 1
        return item

    assert list(spread(answer, range(40), workers=4, allowed=lambda: 2)) == list(range(40))
    assert most <= 2


@pytest.mark.parametrize("stage", ["prefetch", "spread"])
def test_a_thread_that_ends_without_a_word_is_no_hang(stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading.Thread, "run", lambda _self: None)
    waiting = prefetch(range(3), depth=1) if stage == "prefetch" else spread(str, range(3), workers=2)
    with pytest.raises(RuntimeError, match="ended without a word"):
        list(waiting)


def test_what_allowed_raises_is_raised_behind_the_items() -> None:
    asked = [0]

    def allowed() -> int:
        asked[0] += 1
        if asked[0] > 20:
            raise InputError("no plan")
        return 3

    got: list[int] = []
    with pytest.raises(InputError, match="no plan"):
        got.extend(spread(lambda item: item, range(1000), workers=3, allowed=allowed))
    assert got == list(range(len(got)))
    assert got
    assert no_thread_left()
