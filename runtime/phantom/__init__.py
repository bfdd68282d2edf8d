"""A rendered capsule recording with known lesions, for demos, tests and training.

In: a seed and a number of frames. Out: frames and their true labels, an MP4 file, or a small labelled data set.
Must not know: models, events, results.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazy_names

if TYPE_CHECKING:
    from .data_set import MOST_DATA_SET_SEEDS, LabelledFrame, count_frames, render_data_set
    from .recording import (
        DEMO_SEED,
        LESION_LABELS,
        NORMAL,
        Phantom,
        is_recording_of,
        training_frame,
        write_recording,
    )
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        data_set="LabelledFrame MOST_DATA_SET_SEEDS count_frames render_data_set",
        recording="DEMO_SEED LESION_LABELS NORMAL Phantom is_recording_of training_frame write_recording",
    )

__all__ = [
    "DEMO_SEED",
    "LESION_LABELS",
    "MOST_DATA_SET_SEEDS",
    "NORMAL",
    "LabelledFrame",
    "Phantom",
    "count_frames",
    "is_recording_of",
    "render_data_set",
    "training_frame",
    "write_recording",
]
