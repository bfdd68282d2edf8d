"""The one place with a thread: work on the next items while the caller is busy with the last."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Generator, Iterable
from typing import TypeVar

__all__ = ["prefetch"]

T = TypeVar("T")


def prefetch(items: Iterable[T], *, depth: int) -> Generator[T]:
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
                close = getattr(iterator, "close", None)
                if close is not None:
                    close()
        except BaseException as error:  # a thread has nobody else to tell
            failures.append(error)
        finally:
            with changed:
                ended = True
                changed.notify_all()

    # A daemon: should the interpreter end without closing the generator, it must not wait for a recording.
    thread = threading.Thread(target=fill, name="prefetch", daemon=True)
    thread.start()
    try:
        while True:
            with changed:
                changed.wait_for(lambda: ready or ended)
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
