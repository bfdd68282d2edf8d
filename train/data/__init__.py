"""Training frames: decode and preprocess them once, then draw, augment and batch them.

In: a ``Dataset`` and labelled recordings. Out: batches for tf.data or PyTorch. Must not know: networks, losses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from capsule_edge.runtime.lazy import lazy_names

if TYPE_CHECKING:
    from .cache import cached_frames
    from .folds import fold_of, fold_of_real, mask_unseen, withheld_from_fold
    from .frames import (
        PHANTOM,
        TrainingFrames,
        check_labels,
        check_phantom,
        class_prior,
        colours_of,
        draw_epoch,
        draw_mixing,
        draw_weights,
        is_real,
        load_frames,
        scale,
        videos_of,
    )
    from .held_out import named_videos
    from .input_pipeline import Item, batches, unpack
    from .recordings import recording_frames, recording_labels, without_recorded
    from .transplants import check_boxes, made_frames, made_of
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        cache="cached_frames",
        folds="fold_of fold_of_real mask_unseen withheld_from_fold",
        frames=(
            "PHANTOM TrainingFrames check_labels check_phantom class_prior colours_of draw_epoch draw_mixing "
            "draw_weights is_real load_frames scale videos_of"
        ),
        held_out="named_videos",
        input_pipeline="Item batches unpack",
        recordings="recording_frames recording_labels without_recorded",
        transplants="check_boxes made_frames made_of",
    )

__all__ = [
    "PHANTOM",
    "Item",
    "TrainingFrames",
    "batches",
    "cached_frames",
    "check_boxes",
    "check_labels",
    "check_phantom",
    "class_prior",
    "colours_of",
    "draw_epoch",
    "draw_mixing",
    "draw_weights",
    "fold_of",
    "fold_of_real",
    "is_real",
    "load_frames",
    "made_frames",
    "made_of",
    "mask_unseen",
    "named_videos",
    "recording_frames",
    "recording_labels",
    "scale",
    "unpack",
    "videos_of",
    "withheld_from_fold",
    "without_recorded",
]
