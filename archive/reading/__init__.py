"""Read the recordings of an archive with one model, each once, whatever dies meanwhile.

In: recordings, a model and an engine. Out: a result folder for each recording, the very bytes that ``run`` writes,
and a row in the manifest. Workers read; the driver alone decides and records.
Must not know: tables, the command line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from capsule_edge.runtime.lazy import lazy_names

if TYPE_CHECKING:
    from .driver import Driver, DriverOptions, read_archive
    from .metrics import ArchiveMetrics
    from .outcome import ReadingOutcome, ReadingProgress
    from .setup import ReadSetup, tool_hash
    from .store import ResultStore
    from .tasks import Done
    from .work import check_worker, perform
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        driver="Driver DriverOptions read_archive",
        metrics="ArchiveMetrics",
        outcome="ReadingOutcome ReadingProgress",
        setup="ReadSetup tool_hash",
        store="ResultStore",
        tasks="Done",
        work="check_worker perform",
    )

__all__ = [
    "ArchiveMetrics",
    "Done",
    "Driver",
    "DriverOptions",
    "ReadSetup",
    "ReadingOutcome",
    "ReadingProgress",
    "ResultStore",
    "check_worker",
    "perform",
    "read_archive",
    "tool_hash",
]
