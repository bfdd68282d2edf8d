"""Frames to model input: find the field of view, crop, resize, and group frames into batches.

In: decoded frames. Out: uint8 RGB batches of the model's size, and near-duplicate marks. Training, calibration and
reading use this one implementation, and golden frames hold it to the bit.
Must not know: what a model answers, events, results.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazy_names

if TYPE_CHECKING:
    from .batching import (
        FIELD_FRAMES,
        Buffers,
        Collected,
        Prepared,
        Sighted,
        check_frame,
        collect,
        locate,
        prepare,
    )
    from .model_input import FieldOfView, find_field_of_view, preprocess, preprocess_planes
    from .near_duplicates import THRESHOLD, check_threshold, mark_duplicates, measure
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        batching="Buffers Collected FIELD_FRAMES Prepared Sighted check_frame collect locate prepare",
        model_input="FieldOfView find_field_of_view preprocess preprocess_planes",
        near_duplicates="THRESHOLD check_threshold mark_duplicates measure",
    )

__all__ = [
    "FIELD_FRAMES",
    "THRESHOLD",
    "Buffers",
    "Collected",
    "FieldOfView",
    "Prepared",
    "Sighted",
    "check_frame",
    "check_threshold",
    "collect",
    "find_field_of_view",
    "locate",
    "mark_duplicates",
    "measure",
    "prepare",
    "preprocess",
    "preprocess_planes",
]
