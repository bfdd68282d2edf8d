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
    from .frozen import FrozenPictures
    from .memory import give_back
    from .parallel import follow, start
    from .pipeline import BatchResult, Plan, answer_frames, count_cores
    from .request import REQUEST_OPTIONS, ReadRequest, resolve_request
    from .thumbnails import illustrate
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        async_reader="iterate run",
        callbacks="Callbacks",
        frozen="FrozenPictures",
        memory="give_back",
        parallel="follow start",
        pipeline="BatchResult Plan answer_frames count_cores",
        request="REQUEST_OPTIONS ReadRequest resolve_request",
        thumbnails="illustrate",
    )

__all__ = [
    "REQUEST_OPTIONS",
    "BatchResult",
    "Callbacks",
    "FrozenPictures",
    "Plan",
    "ReadRequest",
    "answer_frames",
    "count_cores",
    "follow",
    "give_back",
    "illustrate",
    "iterate",
    "resolve_request",
    "run",
    "start",
]
