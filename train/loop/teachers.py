"""The answers of teachers: exported models, or weights of the architecture that is trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from capsule_edge.runtime.errors import InputError
from capsule_edge.runtime.inference import Backend, ModelSpec, open_model

from ..config import TrainConfig
from ..data import PHANTOM, TrainingFrames, scale
from ..models import architectures, weights

__all__ = ["check_teachers", "specs_of", "teacher_probabilities"]

_WEIGHTS = ".npz"
_BATCH = 64
Answering = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]


def specs_of(teachers: Sequence[Path]) -> list[ModelSpec]:
    """Return the specs of those teachers that are exported models; weights files have none."""
    return [open_model(path).spec for path in teachers if path.suffix != _WEIGHTS]


def teacher_probabilities(
    teachers: Sequence[Path], frames: TrainingFrames, config: TrainConfig
) -> npt.NDArray[np.float32]:
    """Return the mean probabilities of the teachers for each frame.

    Rendered frames get their label as probability 1: the teachers have not learnt to read them.

    Args:
        teachers: exported models, or weights (``.npz``) of the same architecture and size.
        frames: N training frames.
        config: the training configuration.

    Returns:
        float32 (N, labels).

    Raises:
        InputError: a teacher cannot be read, or has other labels or another input size.
    """
    answers = np.eye(len(frames.keys), dtype=np.float32)[frames.labels]
    real = np.flatnonzero(frames.videos != PHANTOM)
    answers[real] = 0
    for path in teachers:
        if path.suffix == _WEIGHTS:
            answer = _answers_of_weights(path, frames, config)
        else:
            answer = _answers_of_model(path, frames)
        for at in range(0, len(real), _BATCH):
            rows = real[at : at + _BATCH]
            answers[rows] += answer(frames.pixels[rows]) / len(teachers)
    return answers


def check_teachers(teachers: Sequence[Path], keys: Sequence[str], config: TrainConfig) -> None:
    """Open each teacher, before any frame is prepared.

    Raises:
        InputError: a teacher cannot be read, or has other labels or another input size or architecture.
    """
    for path in teachers:
        if path.suffix == _WEIGHTS:
            _load_weights(path, len(keys), config)
        else:
            _open_teacher(path, tuple(keys), config.size).close()


def _open_teacher(path: Path, keys: tuple[str, ...], size: int) -> Backend:
    teacher = open_model(path)
    if teacher.spec.keys != keys or teacher.spec.input.size != size:
        spec = teacher.spec
        raise InputError(
            f"the teacher {path} has the labels {', '.join(spec.keys)} and the input size {spec.input.size},"
            f" the model to train has {', '.join(keys)} and {size}",
            hint="choose a teacher with the same labels and input size",
        )
    return teacher


def _answers_of_model(path: Path, frames: TrainingFrames) -> Answering:
    teacher = _open_teacher(path, frames.keys, frames.pixels.shape[1])
    return lambda pixels: teacher.run(pixels).probabilities


def _load_weights(path: Path, labels: int, config: TrainConfig) -> Any:
    import tf_keras

    model = architectures.build(config.architecture, size=config.size, labels=labels, keras=tf_keras)
    weights.assign(model, weights.load(path))
    return model


def _answers_of_weights(path: Path, frames: TrainingFrames, config: TrainConfig) -> Answering:
    import tensorflow as tf

    model = _load_weights(path, len(frames.keys), config)
    answer = tf.function(lambda pixels: tf.nn.softmax(model(pixels, training=False)), reduce_retracing=True)
    return lambda pixels: np.asarray(answer(scale(pixels)))
