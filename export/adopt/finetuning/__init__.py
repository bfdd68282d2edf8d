"""Fine-tune a Keras classifier for 8 bits: the same layers in tf_keras, trained with rounding to answer as before.

In: the layers of the source, its float network, and frames that nothing is measured on. Out: a float network with other
weights, whose 8-bit form loses less. Must not know: labels of frames, certificates, the files of an adoption.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from capsule_edge.runtime.lazy import lazy_names

if TYPE_CHECKING:
    from .requirements import check_requirements
    from .training_frames import FineTuningFrames, divide_off, find_training_frames
    from .tuned_body import TunedBody, tune_body
    from .twin_plan import plan_twin
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        requirements="check_requirements",
        training_frames="FineTuningFrames divide_off find_training_frames",
        tuned_body="TunedBody tune_body",
        twin_plan="plan_twin",
    )

__all__ = [
    "FineTuningFrames",
    "TunedBody",
    "check_requirements",
    "divide_off",
    "find_training_frames",
    "plan_twin",
    "tune_body",
]
