"""Whether a test left threads of the runtime running."""

from __future__ import annotations

import threading

from capsule_edge.runtime.pipeline.parallel import THREAD_PREFIX


def threads_left() -> list[str]:
    """Return the names of the runtime's threads that are alive; all of them have the common prefix.

    The thread that hashes the recording outlives a reading that is closed early. It ends by itself, so wait for it.
    """
    alive = [thread for thread in threading.enumerate() if thread.name.startswith(THREAD_PREFIX)]
    for thread in alive:
        if thread.name.removeprefix(THREAD_PREFIX) in ("digest", "identity"):
            thread.join(10)
    return [thread.name for thread in alive if thread.is_alive()]


def no_thread_left() -> bool:
    return threads_left() == []
