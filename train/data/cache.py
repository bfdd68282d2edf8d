"""Preprocessed frames on disk: decoded once for all runs, and mapped, so that training needs no memory for them.

Two files a data set and size: the frames, uint8 (N, size, size, 3) without a header, and a JSON with their labels and
videos, written last. Their name holds a hash of the images and of the code that preprocesses them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
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
from capsule_edge.runtime.preprocessing import model_input

from ..config import TrainConfig
from . import transplants
from .frames import Frames, check_labels, decode, videos_of
from .transplants import made_frames

__all__ = ["cached_frames"]


def cached_frames(
    dataset: Dataset,
    keys: Sequence[str],
    spec: InputSpec,
    folder: Path,
    *,
    config: TrainConfig | None = None,
    boxes: Path | None = None,
) -> Frames:
    """``load_frames`` with what ``config`` wants made behind, from the cache in ``folder``, which is filled first.

    ``pixels`` is mapped, not loaded. Raises what ``load_frames`` and ``made_frames`` raise, and ``OutputError`` for a
    folder that cannot be written or has no room; nothing is left there then.
    """
    labels = check_labels(dataset, keys)
    frames_file = folder / f"{_key(dataset, keys, spec, config, boxes)}.frames"
    facts_file = frames_file.with_suffix(".json")
    each = spec.size * spec.size * 3
    facts = _facts(facts_file)
    if (
        facts is None
        or not frames_file.is_file()
        or frames_file.stat().st_size != len(facts["labels"]) * each
    ):
        made = made_frames(dataset, keys, spec, config, boxes) if config else None
        facts_file.unlink(missing_ok=True)
        needed = (len(labels) + (len(made) if made else 0)) * each
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
        _replace(facts_file, json.dumps(facts).encode())
    pixels = np.memmap(frames_file, np.uint8, "r", shape=(len(facts["labels"]), spec.size, spec.size, 3))
    return Frames(
        pixels,
        np.array(facts["labels"], np.int64),
        np.array(facts["videos"]),
        tuple(keys),
        tuple(facts["unreadable"]),
    )


def _key(
    dataset: Dataset, keys: Sequence[str], spec: InputSpec, config: TrainConfig | None, boxes: Path | None
) -> str:
    code = b"".join(Path(str(module.__file__)).read_bytes() for module in (model_input, samples, transplants))
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


def _facts(path: Path) -> dict[str, Any] | None:
    try:
        facts = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return facts if isinstance(facts, dict) else None


def _write(
    path: Path, frames: Iterator[npt.NDArray[np.uint8] | None], made: Frames | None, needed: int
) -> list[int]:
    """Write the frames that could be read; the answer is the rows of the others."""
    lost = []
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(path.parent).free
        if free < needed:
            raise OSError(28, f"{needed / 1e6:,.0f} MB are needed, {free / 1e6:,.0f} MB are free")
        with partial.open("wb") as stream:
            for row, frame in enumerate(frames):
                if frame is None:
                    lost.append(row)
                else:
                    stream.write(frame.tobytes())
            if made is not None:
                stream.write(made.pixels.tobytes())
        os.replace(partial, path)
    except OSError as error:
        raise _unwritable(path, error) from None
    finally:
        partial.unlink(missing_ok=True)
    return lost


def _replace(path: Path, content: bytes) -> None:
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_bytes(content)
        os.replace(partial, path)
    except OSError as error:
        raise _unwritable(path, error) from None
    finally:
        partial.unlink(missing_ok=True)


def _unwritable(path: Path, error: OSError) -> OutputError:
    return OutputError(
        f"the preprocessed frames cannot be written to {path.parent}: {error.strerror}",
        hint="give --cache DIR on a disk with room",
    )
