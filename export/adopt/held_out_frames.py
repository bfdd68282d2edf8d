"""Divide the labelled frames: on some the choices are made, on the others the certificates are measured."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from capsule_edge.evaluation.classification import check_labels, load_frames
from capsule_edge.evaluation.datasets import Dataset, folds, load_dataset
from capsule_edge.runtime.errors import InputError
from capsule_edge.runtime.inference import InputSpec

from ..contract import FrameArray
from .options import AdoptOptions

__all__ = ["HeldOutFrames", "divide_frames"]

Division = Literal["split", "video", "none"]
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
        divided_by: ``split``: the two are different splits. ``video``: no video is in both. ``none``: they are the
            same frames, because too few videos are named.
    """

    choosing: Dataset
    pixels: FrameArray
    labels: npt.NDArray[np.intp]
    certifying: Dataset
    divided_by: Division


def divide_frames(data: Path, options: AdoptOptions, keys: tuple[str, ...], spec: InputSpec) -> HeldOutFrames:
    """Read and divide the labelled frames.

    Raises:
        InputError: The frames cannot be read, or have a label that the model lacks.
        UsageError: There is no such split.
    """
    whole = load_dataset(data, split=options.split, label_map=options.data_labels)
    check_labels(whole, keys)
    divided: Division = "split"
    if options.certify_split is not None:
        choosing = whole
        certifying = load_dataset(data, split=options.certify_split, label_map=options.data_labels)
        check_labels(certifying, keys)
    else:
        choosing, certifying, divided = _halves(whole)
    count = len(choosing.samples)
    rows = np.linspace(0, count - 1, min(count, _MOST_CHOOSING)).astype(int)
    kept, pixels = load_frames(choosing.take(rows.tolist()), spec)
    labels = np.array([keys.index(sample.label) for sample in kept.samples], np.intp)
    return HeldOutFrames(kept, pixels, labels, certifying, divided)


def _halves(whole: Dataset) -> tuple[Dataset, Dataset, Division]:
    """Divide a data set in two by video; where that cannot be, both parts are the whole."""
    if any(sample.video_id is None for sample in whole.samples):
        return whole, whole, "none"
    try:
        first, second = folds(whole, 2)[0]
    except InputError:
        return whole, whole, "none"
    return whole.take(first), whole.take(second), "video"
