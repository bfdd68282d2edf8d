"""The training loop: losses, checkpoints, several workers, teachers, calibration, the log.

In: a network and batches. Out: trained weights and a log. Must not know: file formats of export.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from capsule_edge.runtime.lazy import lazy_names

if TYPE_CHECKING:
    from .losses import label_loss
    from .multi_worker import Workers
    from .normalisation import re_estimate
    from .teachers import check_teachers, specs_of, teacher_probabilities
    from .training_log import TrainingLog
    from .training_loop import CheckpointSettings
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        losses="label_loss",
        multi_worker="Workers",
        normalisation="re_estimate",
        teachers="check_teachers specs_of teacher_probabilities",
        training_log="TrainingLog",
        training_loop="CheckpointSettings",
    )

__all__ = [
    "CheckpointSettings",
    "TrainingLog",
    "Workers",
    "check_teachers",
    "label_loss",
    "re_estimate",
    "specs_of",
    "teacher_probabilities",
]
