"""The one place with threads: work on the next items while the caller is busy with the last.

``prefetch`` moves a chain of generators to a thread of its own, ``spread`` applies a function with several, and
``follow`` is ``prefetch`` of what may be waited for in vain. All keep the order, hold a bounded number of items and
raise what happened in a thread behind the items that came before it.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import TypeVar

__all__ = ["close", "follow", "prefetch", "spread", "wait"]

T = TypeVar("T")
U = TypeVar("U")

# A thread that ended without a word (none should) is noticed within this time, s.
_WATCH_S = 1.0
# In what steps ``follow`` looks whether it is to stop, s.
_LOOK_S = 0.1


def prefetch(items: Iterable[T], *, depth: int, name: str = "prefetch") -> Generator[T]:
    """The same items in the same order, made by a thread that is at most ``depth`` items ahead.

    What the thread raises is raised here, behind the items that came before it. When this generator ends or
    is closed, ``items`` is closed too, in its own thread, and the thread has ended: close it, do not drop
    it.
    """
    ready: deque[T] = deque()
    changed = threading.Condition()
    failures: list[BaseException] = []
    stopped = ended = False

    def fill() -> None:
        nonlocal ended
        iterator = iter(items)
        try:
            try:
                for item in iterator:
                    with changed:
                        changed.wait_for(lambda: stopped or len(ready) < depth)
                        if stopped:
                            break
                        ready.append(item)
                        changed.notify_all()
            finally:
                close(iterator)
        except BaseException as error:  # a thread has nobody else to tell
            failures.append(error)
        finally:
            with changed:
                ended = True
                changed.notify_all()

    # A daemon: should the interpreter end without closing the generator, it must not wait for a recording.
    thread = threading.Thread(target=fill, name=name, daemon=True)
    thread.start()
    try:
        while True:
            with changed:
                wait(changed, lambda: bool(ready) or ended, [thread])
                if not ready:
                    break
                item = ready.popleft()
                changed.notify_all()
            yield item
        if failures:
            raise failures[0]
    finally:
        with changed:
            stopped = True
            changed.notify_all()
        thread.join()


def spread(
    function: Callable[[T], U],
    items: Iterable[T],
    *,
    workers: int,
    allowed: Callable[[], int] | None = None,
    name: str = "worker",
) -> Generator[U]:
    """``function(item)`` of each item, in order, worked out by several threads.

    At most two items a worker are taken and not yet handed on. What an item raises is raised here in its place,
    and no further item is taken. When this generator ends or is closed, the threads have ended and ``items`` is
    closed.

    Args:
        allowed: how many of the ``workers`` may work now, asked before each item; all where it is None.
    """
    iterator = iter(items)
    changed, taking = threading.Condition(), threading.Lock()
    answers: dict[int, U] = {}
    failures: dict[int, BaseException] = {}
    taken = given = 0
    stopped = ended = False

    def may_take(number: int) -> bool:
        return taken - given <= workers and (allowed is None or number < max(1, allowed()))

    def take(number: int) -> tuple[int, T] | None:
        """The next item and its place; one thread at a time, so that places follow the order."""
        nonlocal taken, ended
        refused: BaseException | None = None
        with changed:
            try:
                changed.wait_for(lambda: stopped or ended or may_take(number))
            except BaseException as error:  # of ``allowed``
                refused = error
        with taking:
            if stopped or ended:
                return None
            place = taken
            try:
                if refused is not None:
                    raise refused
                item = next(iterator)
            except BaseException as error:
                with changed:
                    ended = True
                    if not isinstance(error, StopIteration):
                        failures[place] = error
                    changed.notify_all()
                return None
            with changed:
                taken += 1
            return place, item

    def work(number: int) -> None:
        nonlocal ended
        while (found := take(number)) is not None:
            place, item = found
            try:
                answer = function(item)
            except BaseException as error:
                with changed:
                    failures[place], ended = error, True
                    changed.notify_all()
                return
            with changed:
                answers[place] = answer
                changed.notify_all()

    def has_come() -> bool:
        return given in answers or given in failures or (ended and given >= taken)

    threads = [
        threading.Thread(target=work, args=(number,), name=name, daemon=True) for number in range(workers)
    ]
    for thread in threads:
        thread.start()
    try:
        while True:
            with changed:
                wait(changed, has_come, threads)
                if given in failures:
                    raise failures[given]
                if given not in answers:
                    break
                answer = answers.pop(given)
                given += 1
                changed.notify_all()
            yield answer
    finally:
        with changed:
            stopped = True
            changed.notify_all()
        for thread in threads:
            thread.join()
        close(iterator)


def follow(
    items: Iterable[T], *, stopped: Callable[[], bool], depth: int, name: str = "follow"
) -> Generator[T]:
    """``prefetch`` of items that may never come: ends soon after ``stopped()``, behind the items that had come.

    A thread that waits for the next item then is left to itself. It ends, and ``items`` with it, when that item comes
    or its source gives up; a daemon, it keeps no program from ending.
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
                            ready.put(item, timeout=_LOOK_S)
                            break
                        except queue.Full:
                            continue
                    else:
                        break
            finally:
                close(iterator)
        except BaseException as error:  # a thread has nobody else to tell
            failures.append(error)

    thread = threading.Thread(target=fill, name=name, daemon=True)
    thread.start()
    try:
        while True:
            # Asked before it is looked: what comes between the two is not lost.
            last = stopped() or not thread.is_alive()
            try:
                item = ready.get(timeout=0 if last else _LOOK_S)
            except queue.Empty:
                if last:
                    break
                continue
            yield item
        if failures:
            raise failures[0]
    finally:
        left = True
        thread.join(_LOOK_S)


def wait(changed: threading.Condition, come: Callable[[], bool], threads: Iterable[threading.Thread]) -> None:
    """Wait until ``come()``, as long as one of the threads that bring it about is alive."""
    while not changed.wait_for(come, timeout=_WATCH_S):
        if not any(thread.is_alive() for thread in threads) and not come():
            names = ", ".join(sorted({thread.name for thread in threads}))
            raise RuntimeError(f"a thread ended without a word: {names}")


def close(iterator: Iterator[object]) -> None:
    close = getattr(iterator, "close", None)
    if close is not None:
        close()
