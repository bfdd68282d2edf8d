"""Whether a thread of ours outlives what it was for."""

from __future__ import annotations

import threading


def no_thread_left() -> bool:
    return not any(
        thread.name in ("decode", "lane", "read", "infer", "prefetch", "worker")
        for thread in threading.enumerate()
    )
