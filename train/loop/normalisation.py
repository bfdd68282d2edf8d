"""Estimate the statistics of batch normalisation again after training.

The moving averages lag behind the weights, by some hundred steps, and the average of the weights has statistics of its
own. After a short training they fit neither. Source: Wu and Johnson, "Rethinking 'Batch' in BatchNorm", 2021 (precise
batch normalisation).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..data import TrainingFrames, scale

__all__ = ["re_estimate"]

_BATCH, _BATCHES = 64, 16


def re_estimate(
    model: Any, frames: TrainingFrames, rows: npt.NDArray[np.int64], *, seed: int, batches: int = _BATCHES
) -> None:
    """Set the mean and variance of each batch normalisation to their mean over batches of training frames.

    Args:
        model: a tf_keras model. Only the statistics change.
        frames: N training frames.
        rows: the frames that the model was trained on, int (n,).
        seed: the same seed draws the same frames.
        batches: the most batches of 64 frames to take; fewer frames are taken once each.
    """
    import tf_keras

    layers = [layer for layer in model.layers if isinstance(layer, tf_keras.layers.BatchNormalization)]
    if not layers:
        return
    chosen = np.random.default_rng((seed, 7)).permutation(rows)[: batches * _BATCH]
    parts = np.array_split(chosen, max(1, len(chosen) // _BATCH))
    kept = [layer.momentum for layer in layers]
    sums: list[npt.NDArray[np.float64]] = []
    try:
        for layer in layers:
            layer.momentum = 0.0  # the moving averages are then those of the last batch
        for part in parts:
            model(scale(frames.pixels[np.sort(part)]), training=True)
            now = [np.asarray(value, np.float64) for layer in layers for value in _statistics(layer)]
            sums = [a + b for a, b in zip(sums, now, strict=True)] if sums else now
    finally:
        for layer, momentum in zip(layers, kept, strict=True):
            layer.momentum = momentum
    variables = [variable for layer in layers for variable in _statistics(layer)]
    for variable, total in zip(variables, sums, strict=True):
        variable.assign((total / len(parts)).astype(np.float32))


def _statistics(layer: Any) -> tuple[Any, Any]:
    return layer.moving_mean, layer.moving_variance
