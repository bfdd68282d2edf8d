"""A rendered capsule recording with known lesions, for demos, tests and training.

In: a seed and a number of frames. Out: frames, their true labels, or an MP4 file.
Must not know: models, events, results.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazy_names

if TYPE_CHECKING:
    from .lesions import LESION_LABELS
    from .recording import DEMO_SEED, NORMAL, Phantom, training_frame, write_recording
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        lesions="LESION_LABELS",
        recording="DEMO_SEED NORMAL Phantom training_frame write_recording",
    )

__all__ = ["DEMO_SEED", "LESION_LABELS", "NORMAL", "Phantom", "training_frame", "write_recording"]
