"""Find threads of the runtime that a test left running."""

from __future__ import annotations

import threading

from capsule_edge.runtime.pipeline.parallel import THREAD_PREFIX


def threads_left() -> list[str]:
    """Return the names of the runtime's threads that are alive. All of them begin with ``THREAD_PREFIX``.

    The thread that hashes the recording ends by itself, later than a read that was closed early. So wait for it.
    """
    alive = [thread for thread in threading.enumerate() if thread.name.startswith(THREAD_PREFIX)]
    for thread in alive:
        if thread.name.removeprefix(THREAD_PREFIX) in ("digest", "identity"):
            thread.join(10)
    return [thread.name for thread in alive if thread.is_alive()]


def no_thread_left() -> bool:
    """Return whether no thread of the runtime is alive."""
    return threads_left() == []
