"""Batches by tf.data: the frames of a draw gathered ahead of the training step.

Frames come preprocessed by the runtime's own code (``data``, ``cache``); here they are only picked, in the order that
the draw says, so that a pipeline can begin at any step of an epoch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from .augment import Variation
from .frames import Draw, Frames

__all__ = ["Item", "batches", "unpack"]

_AHEAD = 2
Item = tuple[Any, ...]


def batches(
    frames: Frames,
    drawn: Draw,
    share: npt.NDArray[np.float32],
    *,
    first: int = 0,
    part: tuple[int, int, int] = (0, 1, 1),
) -> Any:
    """A ``tf.data.Dataset`` of the epoch's batches from step ``first`` on; ``unpack`` says what is in one.

    ``share`` (steps, batch) is that of the neighbour in mixup. ``part`` (from, to, of) are the replicas whose slices
    of each batch are wanted, one element for each.
    """
    begin, end, replicas = part
    steps, batch = drawn.rows.shape
    each, size = batch // replicas, frames.pixels.shape[1]

    def slices(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        apart = values[first:].reshape(steps - first, replicas, each, *values.shape[2:])[:, begin:end]
        return apart.reshape((steps - first) * (end - begin), each, *values.shape[2:])

    def fetch(rows: Any, *rest: Any) -> Item:
        pixels = tf.numpy_function(lambda at: frames.pixels[at], [rows], tf.uint8, stateful=False)
        return (tf.ensure_shape(pixels, (each, size, size, 3)), rows, *rest)

    data = tf.data.Dataset.from_tensor_slices(tuple(map(slices, (drawn.rows, share, *drawn.variation))))
    return data.map(fetch, num_parallel_calls=_AHEAD, deterministic=True).prefetch(_AHEAD)


def unpack(item: Item) -> tuple[Any, Any, Any, Variation]:
    """Pixels uint8 (N, S, S, 3), rows (N,) into the frames, the neighbour's share (N,), and the variation."""
    pixels, rows, share, *variation = item
    return pixels, rows, share, Variation(*variation)
