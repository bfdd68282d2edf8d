"""Adopt a classifier that was trained elsewhere: FP32 and INT8 model files of our contract, each with certificates.

In: a model file of another framework, the labels of its outputs, and labelled frames of videos it was not trained on.
Out: a folder as ``export`` leaves it. Must not know: RUN folders, training, recordings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from capsule_edge.runtime.lazy import lazy_names

if TYPE_CHECKING:
    from .adoption import AdoptionReport, adopt
    from .facts import SourceFacts
    from .options import AdoptOptions
    from .scaling import USUAL
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        adoption="AdoptionReport adopt",
        facts="SourceFacts",
        options="AdoptOptions",
        scaling="USUAL",
    )

__all__ = ["USUAL", "AdoptOptions", "AdoptionReport", "SourceFacts", "adopt"]
