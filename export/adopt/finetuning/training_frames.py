"""Find the frames to fine-tune on, and leave out all that choices or certificates are measured on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from capsule_edge.evaluation.datasets import (
    Dataset,
    Sample,
    describe,
    list_samples,
    load_dataset,
    load_training,
    training_provenance,
)
from capsule_edge.runtime.errors import InputError, UsageError

from ..held_out_frames import HeldOutFrames
from ..options import AdoptOptions

__all__ = ["FineTuningFrames", "divide_off", "find_training_frames"]

_SPLIT = "train"
_WAY_OUT = "give other frames, with labels or without: --finetune-data DIR"
# It bounds the time of an epoch: 5,000 frames of 64 pixels took 25 s with a small network on two busy cores.
_MOST_FRAMES = 10_000
_PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
_UNLABELLED = "unlabelled"


@dataclass(frozen=True)
class FineTuningFrames:
    """The frames to fine-tune on.

    Attributes:
        dataset: The frames. Their labels are not used.
        found: The number of frames before any was left out.
        held_out: The number of frames that were left out, because their video or picture is held out.
        nameless: The number of remaining frames that name no video.
    """

    dataset: Dataset
    found: int
    held_out: int
    nameless: int

    def describe(self) -> dict[str, Any]:
        """Return the frames as provenance records them."""
        return {
            "data": describe(self.dataset),
            "left_out": self.held_out,
            **training_provenance(self.dataset.samples),
        }


def find_training_frames(data: Path, options: AdoptOptions) -> Dataset:
    """Return the frames of ``finetune_data``, or of the split ``train`` of ``data``.

    Args:
        data: The data set of the adoption.
        options: The options of the adoption.

    Raises:
        UsageError: There are none.
        InputError: They cannot be read.
    """
    folder = options.finetune_data
    if folder is not None:
        return _read_pictures(folder) or load_training(folder)
    splits = {sample.split for sample in list_samples(data, label_map=options.data_labels).samples} - {None}
    if _SPLIT not in splits:
        there = f"it has {', '.join(sorted(map(str, splits)))}" if splits else "it names no splits"
        raise UsageError(f"{data} has no split 'train' to fine-tune on, {there}", hint=_WAY_OUT)
    return load_dataset(data, split=_SPLIT, label_map=options.data_labels)


def _read_pictures(folder: Path) -> Dataset | None:
    """Return the pictures that lie in a folder itself; None if it is a data set or holds none."""
    if not folder.is_dir():
        raise InputError(f"the folder {folder} is not there", hint=_WAY_OUT)
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in _PICTURES)
    if (folder / "labels.csv").exists() or not files:
        return None
    return Dataset(tuple(Sample(path, _UNLABELLED) for path in files), (_UNLABELLED,), folder)


def divide_off(dataset: Dataset, frames: HeldOutFrames) -> FineTuningFrames:
    """Leave out each frame whose video or picture is among the frames of choices and certificates.

    Of more than 10,000 remaining frames, as many are taken, evenly spread.

    Raises:
        UsageError: No frame remains.
    """
    held = (*frames.choosing.samples, *frames.certifying.samples)
    videos = {sample.video_id for sample in held} - {None}
    other = [sample for sample in dataset.samples if sample.video_id not in videos]
    same = _same_pictures(other, held)
    rows = [
        at
        for at, sample in enumerate(dataset.samples)
        if sample.video_id not in videos and sample.file not in same
    ]
    if not rows:
        raise UsageError(
            f"all {len(dataset.samples):,} frames of {dataset.root} to fine-tune on are of videos or pictures of the"
            " choices or certificates",
            hint=_WAY_OUT,
        )
    chosen = np.linspace(0, len(rows) - 1, min(len(rows), _MOST_FRAMES)).astype(int)
    kept = dataset.take(rows[at] for at in chosen)
    nameless = sum(sample.video_id is None for sample in kept.samples)
    return FineTuningFrames(kept, len(dataset.samples), len(dataset.samples) - len(rows), nameless)


def _same_pictures(samples: Iterable[Sample], held: Iterable[Sample]) -> set[Path]:
    """Return the files with the same bytes as one that is held out. Only files of the same size are read."""
    sizes: dict[int, list[Path]] = {}
    for sample in held:
        sizes.setdefault(sample.file.stat().st_size, []).append(sample.file)
    hashes: dict[int, set[bytes]] = {}
    found = set()
    for sample in samples:
        size = sample.file.stat().st_size
        if size in sizes:
            if size not in hashes:
                hashes[size] = {_hash(path) for path in sizes[size]}
            if _hash(sample.file) in hashes[size]:
                found.add(sample.file)
    return found


def _hash(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()
