"""The tf.data pipeline: gather the frames of a draw ahead of the training step.

Frames are preprocessed already (``frames``, ``cache``). The pipeline only picks them in the order of the
draw, so it can begin at any step of an epoch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from .augment import Variation
from .frames import EpochDraw, TrainingFrames

__all__ = ["Item", "batches", "unpack"]

_AHEAD = 2
Item = tuple[Any, ...]


def batches(
    frames: TrainingFrames,
    drawn: EpochDraw,
    share: npt.NDArray[np.float32],
    *,
    first: int = 0,
    part: tuple[int, int, int] = (0, 1, 1),
) -> Any:
    """Return a ``tf.data.Dataset`` with the batches of an epoch; ``unpack`` says what a batch holds.

    Args:
        frames: the training frames.
        drawn: the rows and the augmentation of the epoch.
        share: the share of the neighbour in mixup, float32 (steps, batch).
        first: the step to begin at.
        part: (first, end, number of all) replicas. The data set has one element for each step and each of
            these replicas, with the replica's slice of the batch.
    """
    begin, end, replicas = part
    steps, batch = drawn.rows.shape
    each, size = batch // replicas, frames.pixels.shape[1]

    def slices(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        by_replica = values[first:].reshape(steps - first, replicas, each, *values.shape[2:])[:, begin:end]
        return by_replica.reshape((steps - first) * (end - begin), each, *values.shape[2:])

    def fetch(rows: Any, *rest: Any) -> Item:
        pixels = tf.numpy_function(lambda at: frames.pixels[at], [rows], tf.uint8, stateful=False)
        return (tf.ensure_shape(pixels, (each, size, size, 3)), rows, *rest)

    data = tf.data.Dataset.from_tensor_slices(tuple(map(slices, (drawn.rows, share, *drawn.variation))))
    return data.map(fetch, num_parallel_calls=_AHEAD, deterministic=True).prefetch(_AHEAD)


def unpack(item: Item) -> tuple[Any, Any, Any, Variation]:
    """Split a batch into its parts.

    Returns:
        Pixels uint8 (N, S, S, 3), rows (N,) into the frames, share of the neighbour (N,), and augmentation.
    """
    pixels, rows, share, *variation = item
    return pixels, rows, share, Variation(*variation)
