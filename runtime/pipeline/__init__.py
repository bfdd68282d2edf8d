"""A recording through a model on all cores: threads, batches, callbacks.

In: a container and a backend. Out: answers in presentation order, the same for every number of threads.
Must not know: files, HTML. All threads of the runtime are started in ``parallel``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazy_names

if TYPE_CHECKING:
    from .async_reader import iterate, run
    from .callbacks import Follower
    from .memory import give_back
    from .parallel import follow, start
    from .pipeline import Answered, Plan, answer_frames, count_cores
    from .request import SURVEY_OPTIONS, survey_recording
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        async_reader="iterate run",
        callbacks="Follower",
        memory="give_back",
        parallel="follow start",
        pipeline="Answered Plan answer_frames count_cores",
        request="SURVEY_OPTIONS survey_recording",
    )

__all__ = [
    "SURVEY_OPTIONS",
    "Answered",
    "Follower",
    "Plan",
    "answer_frames",
    "count_cores",
    "follow",
    "give_back",
    "iterate",
    "run",
    "start",
    "survey_recording",
]
