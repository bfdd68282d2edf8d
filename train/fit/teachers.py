"""What teachers answer: exported models, or weights of the architecture that is trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from capsule_edge.runtime.errors import InputError
from capsule_edge.runtime.inference import ModelSpec, open_model

from ..config import TrainConfig
from ..data import PHANTOM, Frames, scale
from ..models import architectures, weights

__all__ = ["ask", "specs_of"]

_WEIGHTS = ".npz"


def specs_of(teachers: Sequence[Path]) -> list[ModelSpec]:
    """Of those that are exported models; weights alone say nothing of themselves."""
    return [open_model(path).spec for path in teachers if path.suffix != _WEIGHTS]


def ask(teachers: Sequence[Path], frames: Frames, config: TrainConfig) -> npt.NDArray[np.float32]:
    """The teachers' mean probabilities (N, labels); rendered frames keep their label.

    A teacher is an exported model, or the weights (``.npz``) of one of the same architecture and size.
    """
    answers = np.eye(len(frames.keys), dtype=np.float32)[frames.labels]
    real = np.flatnonzero(frames.videos != PHANTOM)
    answers[real] = 0
    for path in teachers:
        answer = _ask_weights(path, frames, config) if path.suffix == _WEIGHTS else _ask_file(path, frames)
        for at in range(0, len(real), 64):
            rows = real[at : at + 64]
            answers[rows] += answer(frames.pixels[rows]) / len(teachers)
    return answers


def _ask_file(path: Path, frames: Frames) -> Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]:
    teacher = open_model(path)
    if teacher.spec.keys != frames.keys or teacher.spec.input.size != frames.pixels.shape[1]:
        raise InputError(f"the teacher {path} has other labels or another input size than the model to train")
    return lambda pixels: teacher.run(pixels).probabilities


def _ask_weights(
    path: Path, frames: Frames, config: TrainConfig
) -> Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]:
    import tensorflow as tf
    import tf_keras

    model = architectures.build(
        config.architecture, size=config.size, labels=len(frames.keys), keras=tf_keras
    )
    weights.assign(model, weights.load(path))
    answer = tf.function(lambda pixels: tf.nn.softmax(model(pixels, training=False)), reduce_retracing=True)
    return lambda pixels: np.asarray(answer(scale(pixels)))
