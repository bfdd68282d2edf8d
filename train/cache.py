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

from capsule_edge.evaluation import samples
from capsule_edge.evaluation.datasets import Dataset, hash_dataset
from capsule_edge.runtime import preprocess
from capsule_edge.runtime.errors import InputError, OutputError
from capsule_edge.runtime.spec import InputSpec

from .data import Frames, check_labels, decode, phantom_frames, videos_of

__all__ = ["cached_frames"]


def cached_frames(
    dataset: Dataset, keys: Sequence[str], spec: InputSpec, folder: Path, *, phantom: int = 0, seed: int = 0
) -> Frames:
    """``load_frames`` with ``phantom`` rendered frames behind, from the cache in ``folder``, which is filled first.

    ``pixels`` is mapped, not loaded. Raises what ``load_frames`` raises, and ``OutputError`` for a folder that cannot
    be written or has no room; nothing is left there then.
    """
    labels = check_labels(dataset, keys)
    frames_file = folder / f"{_key(dataset, keys, spec, phantom, seed)}.frames"
    facts_file = frames_file.with_suffix(".json")
    each = spec.size * spec.size * 3
    facts = _facts(facts_file)
    if (
        facts is None
        or not frames_file.is_file()
        or frames_file.stat().st_size != len(facts["labels"]) * each
    ):
        rendered = phantom_frames(phantom, keys, spec, seed) if phantom else None
        facts_file.unlink(missing_ok=True)
        needed = (len(labels) + phantom) * each
        lost = _write(frames_file, decode(dataset, spec), rendered, needed)
        if len(lost) == len(labels):
            frames_file.unlink()
            raise InputError(f"none of the {len(labels)} images can be read")
        kept = np.setdiff1d(np.arange(len(labels)), lost)
        extra = (rendered.labels.tolist(), rendered.videos.tolist()) if rendered else ([], [])
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


def _key(dataset: Dataset, keys: Sequence[str], spec: InputSpec, phantom: int, seed: int) -> str:
    code = b"".join(Path(str(module.__file__)).read_bytes() for module in (preprocess, samples))
    settings = [
        hash_dataset(dataset),
        list(keys),
        dataclasses.asdict(spec),
        cv2.__version__,
        phantom,
        phantom and seed,
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
    path: Path, frames: Iterator[npt.NDArray[np.uint8] | None], rendered: Frames | None, needed: int
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
            if rendered is not None:
                stream.write(rendered.pixels.tobytes())
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
