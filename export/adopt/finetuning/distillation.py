"""Train the rounded twin to answer as the FP32 source does, on frames that are read batch by batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from capsule_edge.evaluation.classification import load_frames
from capsule_edge.evaluation.datasets import Dataset
from capsule_edge.runtime.errors import InputError
from capsule_edge.runtime.inference import InputSpec

from ...contract import FrameArray
from ..facts import Floats
from .twin_process import TwinProcess

__all__ = ["Lesson", "TrainedSteps", "distil"]

SEED = 0
# Frames of a batch, and the side in pixels up to which it is that large: the values of all layers are held in training.
_BATCH, _LEAST_BATCH, _SIDE = 32, 8, 128
# The largest step, as a share of the largest weight of a channel: a fortieth of one of its 127 levels. After 300 steps
# of 1e-3, 3e-4 and 1e-4 the emulation of a small network differed by .0043, .0038 and .0037 (docs/log/2026-12.md).
_PEAK_RATE = 2e-4
_WARM_UP = 0.05


@dataclass(frozen=True)
class Lesson:
    """The frames of a training, and how they are read.

    Attributes:
        dataset: The frames.
        spec: Their preprocessing.
        scale: Scales uint8 RGB frames (N, size, size, 3) for the twin.
        teach: Returns the wanted probabilities (N, labels) of uint8 RGB frames.
        epochs: How often each frame is shown.
    """

    dataset: Dataset
    spec: InputSpec
    scale: Callable[[FrameArray], Floats]
    teach: Callable[[FrameArray], Floats]
    epochs: int


@dataclass(frozen=True)
class TrainedSteps:
    """The course of a training.

    Attributes:
        frames: The number of frames that were trained on.
        steps: The number of batches.
        first_loss: The mean loss of the first epoch: the divergence from the source's probabilities in nats.
        last_loss: The mean loss of the last epoch.
    """

    frames: int
    steps: int
    first_loss: float
    last_loss: float


def distil(
    twin: TwinProcess, lesson: Lesson, temperature: float, progress: Callable[[str], None]
) -> TrainedSteps:
    """Train a twin.

    Each batch is read from its files, flipped and turned by quarters, and answered by the source. So memory holds one
    batch, whatever the number of frames.

    Args:
        twin: The twin.
        lesson: The frames.
        temperature: The temperature that divides the twin's logits before the softmax.
        progress: Called with a line for each epoch.

    Raises:
        InputError: No frame can be read.
    """
    rng = np.random.default_rng(SEED)
    count = len(lesson.dataset.samples)
    size = _batch_size(lesson.spec.size)
    first = np.linspace(0, count - 1, min(count, 2 * size)).astype(int)
    _, pixels = load_frames(lesson.dataset.take(first.tolist()), lesson.spec)
    twin.prepare(lesson.scale(pixels), temperature)
    total = lesson.epochs * math.ceil(count / size)
    losses: list[list[float]] = []
    seen: set[str] = set()
    step = 0
    for epoch in range(lesson.epochs):
        losses.append([])
        for names, frames in _batches(lesson, size, rng):
            losses[-1].append(twin.step(lesson.scale(frames), lesson.teach(frames), _rate(step, total)))
            seen.update(names)
            step += 1
        progress(
            f"fine-tuning: epoch {epoch + 1} of {lesson.epochs}, {len(seen):,} frames, loss {np.mean(losses[-1]):.3g}"
        )
    return TrainedSteps(len(seen), step, float(np.mean(losses[0])), float(np.mean(losses[-1])))


def _batch_size(side: int) -> int:
    """Return the number of frames in a batch: fewer of large frames, so that memory stays within a few GB."""
    return max(_LEAST_BATCH, min(_BATCH, _BATCH * _SIDE**2 // side**2))


def _rate(step: int, total: int) -> float:
    """Return the size of a step: a short rise, then half a cosine down to 0."""
    rise = max(1.0, _WARM_UP * total)
    if step < rise:
        return _PEAK_RATE * (step + 1) / rise
    return _PEAK_RATE * 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1.0, total - rise)))


def _batches(lesson: Lesson, size: int, rng: np.random.Generator) -> Iterator[tuple[list[str], FrameArray]]:
    """Yield the names and the augmented frames of each batch of an epoch; files that cannot be read are left out."""
    order = rng.permutation(len(lesson.dataset.samples))
    for at in range(0, len(order), size):
        try:
            kept, frames = load_frames(lesson.dataset.take(order[at : at + size].tolist()), lesson.spec)
        except InputError:  # none of the batch can be read; ``distil`` read some before
            continue
        yield [kept.name_of(sample) for sample in kept.samples], _turn(frames, rng)


def _turn(frames: FrameArray, rng: np.random.Generator) -> FrameArray:
    """Flip each frame with a chance of a half, and turn it by a random number of quarters."""
    turned = [
        np.rot90(frame[:, ::-1] if flipped else frame, quarters)
        for frame, flipped, quarters in zip(
            frames, rng.integers(0, 2, len(frames)), rng.integers(0, 4, len(frames)), strict=True
        )
    ]
    return np.stack(turned)
