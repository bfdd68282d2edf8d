"""Main functions of reading processes that do something else than read. A spawned process imports this module."""

from __future__ import annotations

import os
import threading
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from capsule_edge.workstation.jobs.limits import Limits, end_with_parent

__all__ = ["crash", "hold", "hold_file", "note_order"]


def crash(order: Any, messages: Connection, lifeline: Connection, parent: int, limits: Limits) -> None:
    """End as a decoder with a fault does: at once, without a message."""
    os._exit(7)


def hold(order: Any, messages: Connection, lifeline: Connection, parent: int, limits: Limits) -> None:
    """Send progress, then read for ever."""
    end_with_parent(lifeline, parent)
    messages.send(("progress", {"frames_done": 3, "frames_total": 60}))
    event = {"id": 1, "label": "polyp", "role": "finding", "start_index": 1, "end_index": 2, "peak_p": 0.5}
    weaker = {**event, "id": 2, "label": "ulcer", "peak_p": 0.9}
    messages.send(("partial", {"events": [event, weaker]}))
    threading.Event().wait()


def hold_file(path: str, messages: Connection, lifeline: Connection, parent: int, limits: Limits) -> None:
    """Open a named pipe for writing and keep it open until the process ends."""
    end_with_parent(lifeline, parent)
    with Path(path).open("wb", buffering=0) as file:
        file.write(b"!")
        threading.Event().wait()


def note_order(order: Any, messages: Connection, lifeline: Connection, parent: int, limits: Limits) -> None:
    """Write the title of the study into a file beside the recording, and fail."""
    with (order.recording.parent / "order.txt").open("a") as file:
        file.write(order.title + "\n")
    messages.send(("failed", {"code": "input", "message": f"{order.title}\nhas two lines", "hint": ""}))
