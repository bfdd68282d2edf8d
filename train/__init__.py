"""Training: frames and labels to a RUN folder, which ``export`` turns into model files.

In: labelled frames and recordings. Out: a RUN folder. Must not know: the command line, file formats of export.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from capsule_edge.runtime.lazy import lazy_names

if TYPE_CHECKING:
    from .config import TrainConfig
    from .fitting import FittedRun, fit
    from .run_inputs import OwnerStatement
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        config="TrainConfig",
        fitting="FittedRun fit",
        run_inputs="OwnerStatement",
    )

__all__ = ["FittedRun", "OwnerStatement", "TrainConfig", "fit"]
