"""A recording through a model on all cores: threads, batches, callbacks.

In: a container and a backend. Out: answers in presentation order, the same for every number of threads.
Must not know: files, HTML. All threads of the runtime are started in ``parallel``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazy_names

if TYPE_CHECKING:
    from .async_reader import iterate, run
    from .callbacks import Callbacks
    from .division import Division, Part, PartAnswers, answer_part, divide
    from .frozen import FrozenPictures
    from .memory import give_back
    from .parallel import follow, start
    from .pipeline import BatchResult, Plan, answer_frames, count_cores
    from .request import REQUEST_OPTIONS, ReadRequest, resolve_request, tool_versions
    from .strips import make_strips
    from .thumbnails import illustrate
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        async_reader="iterate run",
        callbacks="Callbacks",
        division="Division Part PartAnswers answer_part divide",
        frozen="FrozenPictures",
        memory="give_back",
        parallel="follow start",
        pipeline="BatchResult Plan answer_frames count_cores",
        request="REQUEST_OPTIONS ReadRequest resolve_request tool_versions",
        strips="make_strips",
        thumbnails="illustrate",
    )

__all__ = [
    "REQUEST_OPTIONS",
    "BatchResult",
    "Callbacks",
    "Division",
    "FrozenPictures",
    "Part",
    "PartAnswers",
    "Plan",
    "ReadRequest",
    "answer_frames",
    "answer_part",
    "count_cores",
    "divide",
    "follow",
    "give_back",
    "illustrate",
    "iterate",
    "make_strips",
    "resolve_request",
    "run",
    "start",
    "tool_versions",
]
