"""Read labelled frames, split them by video, and identify the videos that a model was trained on.

In: a folder of frames. Out: a ``Dataset`` of samples.
Must not know: models, metrics.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from capsule_edge.runtime.lazy import lazy_names

if TYPE_CHECKING:
    from .class_folders import split_name
    from .dataset import (
        DEFAULT_SPLIT,
        Dataset,
        Listing,
        VideoIds,
        describe,
        hash_dataset,
        list_samples,
        load_dataset,
        load_training,
        name_below,
        videos_kept_from,
        without_videos,
    )
    from .label_keys import LabelKeys, check_roles, known_role, label_key, unclear_classes
    from .label_map import LabelMapping, read_label_map
    from .label_table import FileFinder
    from .published import conflicting
    from .samples import ListingRemark, Sample, decode_frame, decode_picture, read_bytes, read_frame
    from .splits import folds
    from .table_rows import read_rows
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
        class_folders="split_name",
        dataset=(
            "DEFAULT_SPLIT Dataset Listing VideoIds describe hash_dataset list_samples load_dataset "
            "load_training name_below videos_kept_from without_videos"
        ),
        label_keys="LabelKeys check_roles known_role label_key unclear_classes",
        label_map="LabelMapping read_label_map",
        label_table="FileFinder",
        published="conflicting",
        samples="ListingRemark Sample decode_frame decode_picture read_bytes read_frame",
        splits="folds",
        table_rows="read_rows",
        training_videos="describe_frames describe_overlap training_overlap training_provenance video_mark",
    )

__all__ = [
    "DEFAULT_SPLIT",
    "Dataset",
    "FileFinder",
    "LabelKeys",
    "LabelMapping",
    "Listing",
    "ListingRemark",
    "Sample",
    "VideoIds",
    "check_roles",
    "conflicting",
    "decode_frame",
    "decode_picture",
    "describe",
    "describe_frames",
    "describe_overlap",
    "folds",
    "hash_dataset",
    "known_role",
    "label_key",
    "list_samples",
    "load_dataset",
    "load_training",
    "name_below",
    "read_bytes",
    "read_frame",
    "read_label_map",
    "read_rows",
    "split_name",
    "training_overlap",
    "training_provenance",
    "unclear_classes",
    "video_mark",
    "videos_kept_from",
    "without_videos",
]
