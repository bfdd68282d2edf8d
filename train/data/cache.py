"""The cache of preprocessed frames, decoded once for all runs.

It is memory-mapped, so training needs no memory for it. There are two files for each data set and size: the
frames, uint8 (N, size, size, 3) without a header, and a JSON file with labels and videos, which is written
last. Their name is a hash of the images and of the code that preprocesses them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from capsule_edge.evaluation.datasets import Dataset, hash_dataset, samples
from capsule_edge.runtime.errors import InputError, OutputError
from capsule_edge.runtime.inference import InputSpec
from capsule_edge.runtime.preprocessing import field_of_view, model_input, plane_scaler
from capsule_edge.runtime.recording import coded_planes
from capsule_edge.runtime.results import clear_abandoned, whole_file, write_whole

from ..config import TrainConfig
from . import transplants
from .frames import TrainingFrames, check_labels, decode, videos_of
from .transplants import made_frames

__all__ = ["cached_frames"]

_HINT = "choose a disk with more free space: --cache DIR"


def cached_frames(
    dataset: Dataset,
    keys: Sequence[str],
    spec: InputSpec,
    folder: Path,
    *,
    config: TrainConfig | None = None,
    boxes: Path | None = None,
) -> TrainingFrames:
    """Return the frames of a data set, and behind them the rendered frames and transplants, from a cache.

    If the cache in ``folder`` lacks them, they are decoded and written first. The frames are those of
    ``load_frames`` followed by those of ``made_frames``.

    Args:
        dataset: the labelled images.
        keys: the labels of the model, in order.
        spec: the input of the model.
        folder: the folder of the cache.
        config: says how many rendered frames and transplants to make; None makes none.
        boxes: the table of lesions for transplants.

    Returns:
        The frames; ``pixels`` is memory-mapped.

    Raises:
        InputError: a label is not among ``keys``, no image can be read, or the table of lesions is damaged.
        UsageError: rendered frames or transplants cannot be made.
        OutputError: the folder cannot be written or has too little space. Nothing is left there then.
    """
    labels = check_labels(dataset, keys)
    frames_file = folder / f"{_key(dataset, keys, spec, config, boxes)}.frames"
    facts = _read_facts(frames_file, spec)
    if facts is None:
        made = made_frames(dataset, keys, spec, config, boxes) if config else None
        facts = _fill(frames_file, dataset, labels, spec, made)
    pixels = np.memmap(frames_file, np.uint8, "r", shape=(len(facts["labels"]), spec.size, spec.size, 3))
    return TrainingFrames(
        pixels,
        np.array(facts["labels"], np.int64),
        np.array(facts["videos"]),
        tuple(keys),
        tuple(facts["unreadable"]),
    )


def _key(
    dataset: Dataset, keys: Sequence[str], spec: InputSpec, config: TrainConfig | None, boxes: Path | None
) -> str:
    """Return the name of the cache: a hash of the data, the settings and the code that preprocesses."""
    code = b"".join(
        Path(str(module.__file__)).read_bytes()
        for module in (coded_planes, field_of_view, model_input, plane_scaler, samples, transplants)
    )
    made = (config.phantom, config.transplants) if config else (0, 0)
    table = hashlib.sha256(boxes.read_bytes()).hexdigest() if boxes and made[1] else ""
    settings = [
        hash_dataset(dataset),
        list(keys),
        dataclasses.asdict(spec),
        cv2.__version__,
        made,
        table,
    ]
    names = [dataset.name_of(sample) for sample in dataset.samples]
    return hashlib.sha256(code + json.dumps([settings, names]).encode()).hexdigest()[:20]


def _fill(
    frames_file: Path,
    dataset: Dataset,
    labels: npt.NDArray[np.int64],
    spec: InputSpec,
    made: TrainingFrames | None,
) -> dict[str, Any]:
    """Write both files and return the content of the JSON file."""
    facts_file = frames_file.with_suffix(".json")
    facts_file.unlink(missing_ok=True)
    needed = (len(labels) + (len(made) if made else 0)) * spec.size * spec.size * 3
    lost = _write(frames_file, decode(dataset, spec), made, needed)
    if len(lost) == len(labels):
        frames_file.unlink()
        raise InputError(f"none of the {len(labels)} images can be read")
    kept = np.setdiff1d(np.arange(len(labels)), lost)
    extra = (made.labels.tolist(), made.videos.tolist()) if made else ([], [])
    facts = {
        "labels": labels[kept].tolist() + extra[0],
        "videos": videos_of(dataset)[kept].tolist() + extra[1],
        "unreadable": [str(dataset.samples[row].file) for row in lost],
    }
    write_whole(facts_file, json.dumps(facts).encode(), hint=_HINT)
    return facts


def _read_facts(frames_file: Path, spec: InputSpec) -> dict[str, Any] | None:
    """Read the JSON file; None if one of the two files is absent or damaged."""
    try:
        facts = json.loads(frames_file.with_suffix(".json").read_text("utf-8"))
        wanted = len(facts["labels"]) * spec.size * spec.size * 3
        return facts if frames_file.stat().st_size == wanted else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(
    path: Path, frames: Iterator[npt.NDArray[np.uint8] | None], made: TrainingFrames | None, needed: int
) -> list[int]:
    """Write the frames and return the rows of those that could not be read."""
    lost = []
    clear_abandoned(path)
    with whole_file(path, hint=_HINT) as temporary:
        path.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(path.parent).free
        if free < needed:
            raise OutputError(
                f"{path.parent} has no room for the frames: {needed / 1e6:,.0f} MB are needed,"
                f" {free / 1e6:,.0f} MB are free",
                hint=_HINT,
            )
        with temporary.open("wb") as stream:
            for row, frame in enumerate(frames):
                if frame is None:
                    lost.append(row)
                else:
                    stream.write(frame.tobytes())
            if made is not None:
                stream.write(made.pixels.tobytes())
    return lost
