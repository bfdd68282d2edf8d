"""Read a RUN folder: the models and facts that training leaves for export.

========================  ==================================================================================
file                      content
========================  ==================================================================================
``run.json``              ``architecture``, ``size``, ``labels`` (their number) and ``spec``, a ModelSpec
                          without ``precision``; ``weak`` where training found reasons not to export the model
``fp32.weights.npz``      weights of the FP32 model (``train.models.weights``)
``qat.weights.npz``       weights and ranges of the QAT model (``train.qat.quantised_model.save_qat``)
``network.json``          only for an architecture of the user's own: the network (``train.models.own_network``)
``replay.npz``            optional: ``frames``, uint8 (N, size, size, 3), preprocessed. The exported files are
                          compared on them.
========================  ==================================================================================
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tf_keras

from capsule_edge.runtime.errors import InputError
from capsule_edge.runtime.inference import ModelSpec
from capsule_edge.train.models import NETWORK_FILE, architectures, build_network, weights
from capsule_edge.train.qat import quantised_model

from .contract import FrameArray

__all__ = ["TrainedRun", "load_fp32", "load_run", "synthetic_frames"]


@dataclass(frozen=True)
class TrainedRun:
    """A RUN folder in memory.

    Attributes:
        fp32: The Keras FP32 model.
        qat: The Keras QAT model.
        spec: The ModelSpec of the FP32 model.
        frames: uint8 RGB (N, size, size, 3), on which the exported files are compared.
        frames_are: Where ``frames`` come from: ``replay.npz`` or ``synthetic``.
        weak: The reasons not to export the model that training found (``train.weakness``).
    """

    fp32: Any
    qat: Any
    spec: ModelSpec
    frames: FrameArray
    frames_are: str
    weak: tuple[str, ...] = ()


def load_run(folder: str | os.PathLike[str]) -> TrainedRun:
    """Read a RUN folder.

    Without ``replay.npz`` the frames are synthetic.

    Raises:
        InputError: A file is missing or cannot be read, or two files contradict each other.
    """
    folder = Path(folder)
    fp32, spec = load_fp32(folder)
    if not (folder / "qat.weights.npz").is_file():
        raise InputError(
            f"{folder} holds no qat.weights.npz", hint="the training did not finish; continue it"
        )
    size = spec.input.size
    quantised = quantised_model.load_qat(folder / "qat.weights.npz", fp32)
    frames = _replay_frames(folder / "replay.npz", size)
    weak = tuple(map(str, _read_document(folder / "run.json").get("weak", ())))
    if frames is None:
        return TrainedRun(fp32, quantised, spec, synthetic_frames(size), "synthetic", weak)
    return TrainedRun(fp32, quantised, spec, frames, "replay.npz", weak)


def load_fp32(folder: str | os.PathLike[str]) -> tuple[Any, ModelSpec]:
    """Read the FP32 model of a RUN folder.

    Returns:
        The Keras model with its trained weights, and its ModelSpec.

    Raises:
        InputError: As for ``load_run``.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"no run folder at {folder}", hint="make one with 'capsule-edge train'")
    document = _read_document(folder / "run.json")
    for name in ("run.json", "fp32.weights.npz"):
        if not (folder / name).is_file():
            raise InputError(f"{folder} holds no {name}", hint="the training did not finish; continue it")
    spec = ModelSpec.from_json(json.dumps({**document["spec"], "precision": "fp32"}))
    size, labels = document["size"], document["labels"]
    if (size, labels) != (spec.input.size, len(spec.labels)):
        raise InputError(
            f"{folder / 'run.json'}: size {size!r} and {labels!r} labels, but its spec has {spec.input.size}"
            f" and {len(spec.labels)}"
        )
    fp32 = _build(folder, document["architecture"], size, labels)
    weights.assign(fp32, weights.load(folder / "fp32.weights.npz"))
    return fp32, spec


def _build(folder: Path, architecture: str, size: int, labels: int) -> Any:
    """Return the network of a run with fresh weights: the user's own where the run holds one."""
    own = folder / NETWORK_FILE
    if not own.is_file():
        return architectures.build(architecture, size=size, labels=labels, keras=tf_keras)
    return build_network(own.read_text("utf-8"), own)


def _read_document(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise InputError(
            f"{path.parent} holds no run.json", hint="give the folder that 'capsule-edge train' wrote"
        ) from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}") from None
    kinds = {"architecture": str, "size": int, "labels": int, "spec": dict}
    for key, kind in kinds.items():
        found = document.get(key) if isinstance(document, dict) else None
        if not isinstance(found, kind) or isinstance(found, bool):
            raise InputError(f"{path}: {key!r} is {found!r}, it must be of type {kind.__name__}")
    return dict(document)


def _replay_frames(path: Path, size: int) -> FrameArray | None:
    if not path.exists():
        return None
    try:
        with np.load(path) as archive:
            frames = archive["frames"]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path} holds no frames: {error}") from None
    if frames.dtype != np.uint8 or frames.shape[1:] != (size, size, 3) or not len(frames):
        raise InputError(
            f"{path}: frames are {frames.dtype} {frames.shape}, they must be uint8 (N, {size}, {size}, 3)"
        )
    return np.asarray(frames)


def synthetic_frames(size: int, *, count: int = 32, seed: int = 0) -> FrameArray:
    """Draw smooth random colour fields: they show no tissue, but cover all pixel values and many gradients.

    Args:
        size: Width and height in pixels.
        count: Number of frames.
        seed: Seed of the random numbers. The same seed gives the same frames.

    Returns:
        uint8 RGB (count, size, size, 3).
    """
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, 8, 8, 3)).astype(np.uint8)
    grown = [cv2.resize(field, (size, size), interpolation=cv2.INTER_CUBIC) for field in coarse]
    return np.asarray(np.stack(grown), np.uint8)
