"""Divide the labelled frames: on some the choices are made, on the others the certificates are measured."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from capsule_edge.evaluation.classification import check_labels, load_frames
from capsule_edge.evaluation.datasets import Dataset, folds, load_dataset, without_videos
from capsule_edge.runtime.errors import InputError, UsageError
from capsule_edge.runtime.inference import InputSpec

from ..contract import FrameArray
from .options import AdoptOptions

__all__ = ["HeldOutFrames", "divide_frames"]

Division = Literal["split", "frame", "video", "none"]
# Enough frames to fit a temperature, to rank layers and to judge the gates.
_MOST_CHOOSING = 1000


@dataclass(frozen=True)
class HeldOutFrames:
    """The frames of an adoption.

    Attributes:
        choosing: The frames on which temperature, operating points, ranges and float layers are chosen.
        pixels: The same, preprocessed: uint8 RGB (N, size, size, 3).
        labels: Their true labels as numbers of the model's outputs, int (N,).
        certifying: The frames on which the certificates are measured.
        divided_by: ``split``: the two are different splits, and no named video is in both. ``frame``: the two are
            different splits that share videos. ``video``: they are one split, and no video is in both. ``none``: they
            are the same frames, because too few videos are named.
        shared_videos: The number of videos that are in both, where the two are different splits.
        left_out: The number of frames that were taken out of the choices, because they or their videos certify.
    """

    choosing: Dataset
    pixels: FrameArray
    labels: npt.NDArray[np.intp]
    certifying: Dataset
    divided_by: Division
    shared_videos: int = 0
    left_out: int = 0


def divide_frames(data: Path, options: AdoptOptions, keys: tuple[str, ...], spec: InputSpec) -> HeldOutFrames:
    """Read and divide the labelled frames.

    Raises:
        InputError: The frames cannot be read, or have a label that the model lacks.
        UsageError: There is no such split, or the frames of the certificates leave none for the choices.
    """
    whole = load_dataset(data, split=options.split, label_map=options.data_labels)
    check_labels(whole, keys)
    shared = 0
    if options.certify_split is not None:
        certifying = load_dataset(data, split=options.certify_split, label_map=options.data_labels)
        check_labels(certifying, keys)
        choosing = _without(whole, certifying, options)
        shared = len(_videos(choosing) & _videos(certifying))
        divided: Division = "frame" if shared else "split"
    else:
        choosing, certifying, divided = _halves(whole)
    left_out = 0 if options.certify_split is None else len(whole.samples) - len(choosing.samples)
    count = len(choosing.samples)
    rows = np.linspace(0, count - 1, min(count, _MOST_CHOOSING)).astype(int)
    kept, pixels = load_frames(choosing.take(rows.tolist()), spec)
    labels = np.array([keys.index(sample.label) for sample in kept.samples], np.intp)
    return HeldOutFrames(kept, pixels, labels, certifying, divided, shared, left_out)


def _without(choosing: Dataset, certifying: Dataset, options: AdoptOptions) -> Dataset:
    """Return the frames of the choices that certify nothing; those of no video that certifies, unless both are named.

    Two splits that the user names are taken as they are; one that names a frame of the other is refused.
    """
    taken = {sample.file for sample in certifying.samples}
    apart = choosing.take(at for at, sample in enumerate(choosing.samples) if sample.file not in taken)
    common = len(choosing.samples) - len(apart.samples)
    if options.split is not None and common:
        raise UsageError(
            f"{common:,} frames are in both --split {options.split} and --certify-split {options.certify_split}",
            hint="name two splits that share no frame, or leave --split out",
        )
    if options.split is None:
        apart = without_videos(apart, _videos(certifying))
    if not apart.samples:
        raise UsageError(
            f"--certify-split {options.certify_split} leaves no frames for the choices",
            hint="name other frames for them: --split NAME",
        )
    return apart


def _videos(dataset: Dataset) -> set[str]:
    """Return the videos that are named."""
    return {sample.video_id for sample in dataset.samples if sample.video_id is not None}


def _halves(whole: Dataset) -> tuple[Dataset, Dataset, Division]:
    """Divide a data set in two by video; where that cannot be, both parts are the whole."""
    if any(sample.video_id is None for sample in whole.samples):
        return whole, whole, "none"
    try:
        first, second = folds(whole, 2)[0]
    except InputError:
        return whole, whole, "none"
    return whole.take(first), whole.take(second), "video"
