"""Read labelled frames, split them by video, and identify the videos that a model was trained on.

In: a folder of frames. Out: a ``Dataset`` of samples.
Must not know: models, metrics.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from capsule_edge.runtime.lazy import lazy_names

if TYPE_CHECKING:
    from .dataset import (
        DEFAULT_SPLIT,
        Dataset,
        Listing,
        describe,
        hash_dataset,
        list_samples,
        load_dataset,
        load_training,
        name_below,
    )
    from .published import conflicting
    from .samples import Sample, decode_frame, label_key, read_bytes, read_frame, read_rows
    from .splits import folds
    from .training_videos import (
        describe_frames,
        describe_overlap,
        training_overlap,
        training_provenance,
        video_mark,
    )
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        dataset=(
            "DEFAULT_SPLIT Dataset Listing describe hash_dataset list_samples load_dataset "
            "load_training name_below"
        ),
        published="conflicting",
        samples="Sample decode_frame label_key read_bytes read_frame read_rows",
        splits="folds",
        training_videos="describe_frames describe_overlap training_overlap training_provenance video_mark",
    )

__all__ = [
    "DEFAULT_SPLIT",
    "Dataset",
    "Listing",
    "Sample",
    "conflicting",
    "decode_frame",
    "describe",
    "describe_frames",
    "describe_overlap",
    "folds",
    "hash_dataset",
    "label_key",
    "list_samples",
    "load_dataset",
    "load_training",
    "name_below",
    "read_bytes",
    "read_frame",
    "read_rows",
    "training_overlap",
    "training_provenance",
    "video_mark",
]
