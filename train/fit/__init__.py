"""The training loop: losses, checkpoints, several workers, teachers, calibration.

In: a network and batches. Out: trained weights and a log. Must not know: file formats of export.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from capsule_edge.runtime.lazy import lazy_names

if TYPE_CHECKING:
    from .loop import Saving
    from .losses import label_loss
    from .multi_worker import Workers
    from .teachers import ask, specs_of
    from .training_log import Journal
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        loop="Saving",
        losses="label_loss",
        multi_worker="Workers",
        teachers="ask specs_of",
        training_log="Journal",
    )

__all__ = ["Journal", "Saving", "Workers", "ask", "label_loss", "specs_of"]
