"""Quantise a model after training, without further training: choose each layer's range from its values.

This shows what QAT gains, and serves users who have no training data. The result differs from a QAT model only in its
ranges, so it becomes integers and files in the same way and passes the same checks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tf_keras

from capsule_edge.runtime.errors import InputError, UsageError
from capsule_edge.train.qat import observed_ranges, quantize, set_ranges

from .range_methods import BINS, METHODS, widened

__all__ = ["quantize_after_training"]

_Range = tuple[float, float]
_Histogram = npt.NDArray[np.float64]
_Batches = Sequence[npt.NDArray[np.float32]]


def quantize_after_training(
    fp32_model: Any, batches: _Batches, *, method: str = "minmax", saturation_safe: bool = False
) -> Any:
    """Quantise an FP32 model with ranges taken from representative frames.

    Args:
        fp32_model: The Keras FP32 model.
        batches: float32 (N, size, size, 3) in [-1, 127/128], from the training split. They are read twice.
        method: How each layer's range is chosen. ``minmax`` keeps the smallest and the largest value.
            ``percentile`` clips one value in 1e4 on each side. ``entropy`` takes the range whose 8-bit histogram
            has the least Kullback-Leibler divergence from the full one (Migacz, GTC 2017). ``mse`` takes the range
            with the least squared error of rounding and clipping. Pooled features and logits have no outliers to
            clip and always use ``minmax``.
        saturation_safe: Widen weight ranges so that no sum of two products overflows 16 bits.

    Returns:
        A quantised model, as ``train.qat.quantize`` makes it.

    Raises:
        UsageError: The method is unknown.
        InputError: There is no batch.
    """
    if method not in METHODS:
        raise UsageError(f"method {method!r} is not known, allowed is one of {', '.join(METHODS)}")
    if not len(batches):
        raise InputError(
            "no batch to calibrate the quantised model on", hint="give at least one batch of frames"
        )
    quantised = quantize(fp32_model, saturation_safe=saturation_safe)
    points = observed_ranges(quantised)
    watched = tf_keras.Model(
        fp32_model.inputs, [fp32_model.get_layer(point.source).output for point in points]
    )
    ranges = _outermost(watched, batches, len(points))
    if method != "minmax":
        ranges = [
            ends if point.extreme else METHODS[method](histogram, widened(ends))
            for point, histogram, ends in zip(
                points, _histograms(watched, batches, ranges), ranges, strict=True
            )
        ]
    set_ranges(quantised, {point.layer: ends for point, ends in zip(points, ranges, strict=True)})
    return quantised


def _outermost(model: Any, batches: _Batches, count: int) -> list[_Range]:
    """Return the smallest and the largest value of each of ``count`` outputs; 0 is always within."""
    ranges = [(0.0, 0.0)] * count
    for values in _outputs(model, batches):
        pairs = zip(ranges, values, strict=True)
        ranges = [(min(low, float(v.min())), max(high, float(v.max()))) for (low, high), v in pairs]
    return ranges


def _histograms(model: Any, batches: _Batches, ranges: Sequence[_Range]) -> list[_Histogram]:
    """Return the histogram of each output over its range."""
    histograms = [np.zeros(BINS) for _ in ranges]
    for values in _outputs(model, batches):
        for histogram, value, ends in zip(histograms, values, ranges, strict=True):
            histogram += np.histogram(value, bins=BINS, range=widened(ends))[0]
    return histograms


def _outputs(model: Any, batches: _Batches) -> Iterator[list[npt.NDArray[Any]]]:
    """Yield the outputs of the model for each batch."""
    for batch in batches:
        values = model(batch, training=False)
        yield [np.asarray(value) for value in (values if isinstance(values, list | tuple) else [values])]
