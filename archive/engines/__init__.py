"""Run tasks in other processes: those of this machine, or a Ray cluster.

In: a function, what it needs once, and tasks. Out: the result of each task, or why it has none. A task that kills its
process, takes too much memory or too long ends in a ``WorkerFailure``, and the others go on.
Must not know: recordings, models, manifests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from capsule_edge.runtime.lazy import lazy_names

if TYPE_CHECKING:
    from .engine import Refusal, TaskEngine, TaskLimits, Work, WorkerFailure
    from .processes import ProcessEngine
    from .ray_engine import RayEngine
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        engine="TaskEngine TaskLimits Refusal Work WorkerFailure",
        processes="ProcessEngine",
        ray_engine="RayEngine",
    )

__all__ = ["ProcessEngine", "RayEngine", "Refusal", "TaskEngine", "TaskLimits", "Work", "WorkerFailure"]
