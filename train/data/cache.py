"""The cache of preprocessed frames, decoded once for all runs.

It is memory-mapped, so training needs no memory for it. There are two files for each data set and size: the
frames, uint8 (N, size, size, 3) without a header, and a JSON file with labels and videos, which is written
last. Their name is a hash of the images, the recordings and the code that preprocesses them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt

from capsule_edge.evaluation.datasets import Dataset, hash_dataset, samples
from capsule_edge.evaluation.recordings import LabelledRecording, LabelledRecordings, NormalStretch
from capsule_edge.runtime.errors import InputError, OutputError
from capsule_edge.runtime.inference import InputSpec
from capsule_edge.runtime.preprocessing import batching, field_of_view, model_input, plane_scaler
from capsule_edge.runtime.recording import coded_planes
from capsule_edge.runtime.results import clear_abandoned, whole_file, write_whole

from ..config import TrainConfig
from . import transplants
from .frames import TrainingFrames, check_labels, decode, videos_of
from .recordings import decode_recordings, lost_frames, recording_labels, without_recorded
from .transplants import made_frames

__all__ = ["cached_frames"]

# The modules that decide the bytes of a prepared frame.
_CODE = (batching, coded_planes, field_of_view, model_input, plane_scaler, samples, transplants)

_HINT = "choose a disk with more free space: --cache DIR"


def cached_frames(
    dataset: Dataset,
    keys: Sequence[str],
    spec: InputSpec,
    folder: Path,
    *,
    config: TrainConfig | None = None,
    boxes: Path | None = None,
    recordings: LabelledRecordings | None = None,
    stretches: Sequence[NormalStretch] = (),
) -> TrainingFrames:
    """Return the frames of a data set, of recordings, and the rendered frames and transplants, from a cache.

    If the cache in ``folder`` lacks them, they are decoded and written first. The frames are those of
    ``load_frames`` for the images that no recording has, of ``recording_frames``, and of ``made_frames``.

    Args:
        dataset: the labelled images.
        keys: the labels of the model, in order.
        spec: the input of the model.
        folder: the folder of the cache.
        config: says how many rendered frames and transplants to make; None makes none.
        boxes: the table of lesions for transplants.
        recordings: the labelled recordings; None adds none.
        stretches: normal frames of them on which a model raised events; they become ``hard``.

    Returns:
        The frames; ``pixels`` is memory-mapped.

    Raises:
        InputError: a label is not among ``keys``, no image can be read, a recording cannot be read or does not fit its
            truth, or a table is damaged.
        UsageError: rendered frames or transplants cannot be made.
        OutputError: the folder cannot be written or has too little space. Nothing is left there then.
    """
    listed = recordings.recordings if recordings else ()
    images = without_recorded(dataset, listed) if listed else dataset
    labels = check_labels(images, keys)
    recorded = recording_labels(listed, keys, stretches) if listed else None
    frames_file = folder / f"{_key(dataset, keys, spec, config, boxes, recordings)}.frames"
    facts = _read_facts(frames_file, spec)
    if facts is None:
        made = made_frames(dataset, keys, spec, config, boxes) if config else None
        facts = _fill(frames_file, images, labels, spec, listed, recorded, made)
    pixels = np.memmap(frames_file, np.uint8, "r", shape=(len(facts["labels"]), spec.size, spec.size, 3))
    frames = TrainingFrames(
        pixels,
        np.array(facts["labels"], np.int64),
        np.array(facts["videos"]),
        tuple(keys),
        tuple(facts["unreadable"]),
    )
    return frames if recorded is None else _placed(frames, recorded, facts["recorded"])


def _placed(frames: TrainingFrames, recorded: TrainingFrames, where: dict[str, Any]) -> TrainingFrames:
    """Return ``frames`` with the places and the marks of their recorded frames.

    Args:
        frames: all frames.
        recorded: every labelled frame of the recordings, without pixels.
        where: ``first``, the row of the first recorded frame, and ``lost``, those that could not be read.
    """
    kept = recorded.take(np.setdiff1d(np.arange(len(recorded)), where["lost"]))
    rows = slice(where["first"], where["first"] + len(kept))
    places, hard = frames.recorded_at, frames.is_hard
    places[rows], hard[rows] = kept.recorded_at, kept.is_hard
    return dataclasses.replace(frames, places=places, hard=hard)


def _key(
    dataset: Dataset,
    keys: Sequence[str],
    spec: InputSpec,
    config: TrainConfig | None,
    boxes: Path | None,
    recordings: LabelledRecordings | None,
) -> str:
    """Return the name of the cache: a hash of the data, the settings and the code that preprocesses."""
    code = b"".join(Path(str(module.__file__)).read_bytes() for module in _CODE)
    made = (config.phantom, config.transplants) if config else (0, 0)
    table = hashlib.sha256(boxes.read_bytes()).hexdigest() if boxes and made[1] else ""
    settings = [
        hash_dataset(dataset),
        list(keys),
        dataclasses.asdict(spec),
        cv2.__version__,
        av.__version__,
        made,
        table,
        recordings.sha256 if recordings else "",
    ]
    names = [dataset.name_of(sample) for sample in dataset.samples]
    return hashlib.sha256(code + json.dumps([settings, names]).encode()).hexdigest()[:20]


def _fill(
    frames_file: Path,
    images: Dataset,
    labels: npt.NDArray[np.int64],
    spec: InputSpec,
    recordings: Sequence[LabelledRecording],
    recorded: TrainingFrames | None,
    made: TrainingFrames | None,
) -> dict[str, Any]:
    """Write both files and return the content of the JSON file."""
    facts_file = frames_file.with_suffix(".json")
    facts_file.unlink(missing_ok=True)
    number = len(labels) + (len(recorded) if recorded else 0)
    needed = (number + (len(made) if made else 0)) * spec.size * spec.size * 3
    with _room_for(frames_file, needed) as temporary:
        lost = _write_images(temporary, decode(images, spec))
        readable = _append_recordings(temporary, recordings, spec)
        if made is not None:
            with temporary.open("ab") as stream:
                stream.write(made.pixels.tobytes())
    if len(lost) == len(labels) and not readable.any():
        frames_file.unlink()
        what = f"{number} images and frames of recordings" if recordings else f"{number} images"
        raise InputError(f"none of the {what} can be read")
    kept = np.setdiff1d(np.arange(len(labels)), lost)
    whole = TrainingFrames(
        np.empty((len(kept), 0, 0, 3), np.uint8), labels[kept], videos_of(images)[kept].astype(np.str_), ()
    )
    parts = [
        whole,
        *([recorded.take(np.flatnonzero(readable))] if recorded else []),
        *([made] if made else []),
    ]
    facts = {
        "labels": [int(label) for part in parts for label in part.labels],
        "videos": [str(video) for part in parts for video in part.videos],
        "unreadable": [
            *(str(images.samples[row].file) for row in lost),
            *lost_frames(recordings, readable),
        ],
        "recorded": {"first": len(kept), "lost": np.flatnonzero(~readable).tolist()},
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


@contextmanager
def _room_for(path: Path, needed: int) -> Iterator[Path]:
    """Yield a temporary file that becomes ``path`` when the block ends without an error.

    Raises:
        OutputError: fewer than ``needed`` bytes are free, or the file cannot be written.
    """
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
        yield temporary


def _write_images(path: Path, frames: Iterator[npt.NDArray[np.uint8] | None]) -> list[int]:
    """Write the images and return the rows of those that could not be read."""
    lost = []
    with path.open("wb") as stream:
        for row, frame in enumerate(frames):
            if frame is None:
                lost.append(row)
            else:
                stream.write(frame.tobytes())
    return lost


def _append_recordings(
    path: Path, recordings: Sequence[LabelledRecording], spec: InputSpec
) -> npt.NDArray[np.bool_]:
    """Append the frames of recordings, without gaps. Return which of them could be read."""
    start, each, lock = path.stat().st_size, spec.size * spec.size * 3, threading.Lock()
    with path.open("r+b") as stream:

        def keep(row: int, frame: npt.NDArray[np.uint8]) -> None:
            with lock:
                stream.seek(start + row * each)
                stream.write(frame.tobytes())

        readable = decode_recordings(recordings, spec, keep)
        kept = np.flatnonzero(readable).tolist()
        for to, row in enumerate(kept):
            if to != row:
                stream.seek(start + row * each)
                frame = stream.read(each)
                stream.seek(start + to * each)
                stream.write(frame)
        stream.truncate(start + len(kept) * each)
    return readable
