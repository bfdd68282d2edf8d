"""A rendered capsule recording with known lesions, for demos, tests and training.

In: a seed and a number of frames. Out: frames and their true labels, an MP4 file, or a small labelled data set.
Must not know: models, events, studies.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazy_names

if TYPE_CHECKING:
    from .data_set import count_frames, render_data_set
    from .lesions import LESION_LABELS
    from .recording import DEMO_SEED, NORMAL, Phantom, is_recording_of, training_frame, write_recording
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        data_set="count_frames render_data_set",
        lesions="LESION_LABELS",
        recording="DEMO_SEED NORMAL Phantom is_recording_of training_frame write_recording",
    )

__all__ = [
    "DEMO_SEED",
    "LESION_LABELS",
    "NORMAL",
    "Phantom",
    "count_frames",
    "is_recording_of",
    "render_data_set",
    "training_frame",
    "write_recording",
]
