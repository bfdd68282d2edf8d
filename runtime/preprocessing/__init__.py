"""Frames to model input: find the field of view, crop, resize, and group frames into batches.

In: decoded frames. Out: uint8 RGB batches of the model's size, and near-duplicate marks. Training, calibration and
reading use this one implementation, and golden frames hold it to the bit.
Must not know: what a model answers, events, results.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazy_names

if TYPE_CHECKING:
    from .batching import Batch, PixelBuffers, check_frame, make_batches, prepare
    from .field_of_view import (
        FIELD_FRAMES,
        FieldOfView,
        check_sizes,
        find_field_of_view,
        settle_field_of_view,
    )
    from .model_input import (
        mean_colours,
        preprocess,
        preprocess_coded,
        preprocess_frame,
        preprocess_planes,
    )
    from .near_duplicates import THRESHOLD, check_threshold, mark_duplicates, measure
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        batching="Batch PixelBuffers check_frame make_batches prepare",
        field_of_view="FIELD_FRAMES FieldOfView check_sizes find_field_of_view settle_field_of_view",
        model_input="mean_colours preprocess preprocess_coded preprocess_frame preprocess_planes",
        near_duplicates="THRESHOLD check_threshold mark_duplicates measure",
    )

__all__ = [
    "FIELD_FRAMES",
    "THRESHOLD",
    "Batch",
    "FieldOfView",
    "PixelBuffers",
    "check_frame",
    "check_sizes",
    "check_threshold",
    "find_field_of_view",
    "make_batches",
    "mark_duplicates",
    "mean_colours",
    "measure",
    "prepare",
    "preprocess",
    "preprocess_coded",
    "preprocess_frame",
    "preprocess_planes",
    "settle_field_of_view",
]
