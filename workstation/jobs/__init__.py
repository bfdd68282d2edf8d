"""Jobs: read the recordings of studies one after the other, each in a process of its own; previews at once.

In: queued jobs of the database. Out: result folders and rows, and messages while a recording is read.
Must not know: HTTP, readings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from capsule_edge.runtime.lazy import lazy_names

if TYPE_CHECKING:
    from .limits import Limits
    from .model_check import check_model_apart
    from .process import ReadingProcess
    from .queue import JobQueue
    from .worker import ReadOrder, check_recording
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        limits="Limits",
        model_check="check_model_apart",
        process="ReadingProcess",
        queue="JobQueue",
        worker="ReadOrder check_recording",
    )

__all__ = ["JobQueue", "Limits", "ReadOrder", "ReadingProcess", "check_model_apart", "check_recording"]
