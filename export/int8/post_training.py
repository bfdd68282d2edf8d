"""Quantise a model after training, without further training: choose each layer's range from its values.

This shows what QAT gains, and serves users who have no training data. The result differs from a QAT model only in its
ranges, so it becomes integers and files in the same way and passes the same checks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tf_keras

from capsule_edge.runtime.errors import InputError, UsageError
from capsule_edge.train.qat import observed_ranges, quantize, set_ranges

__all__ = ["METHODS", "quantize_after_training"]

_Range = tuple[float, float]
_Histogram = npt.NDArray[np.float64]
_Batches = Sequence[npt.NDArray[np.float32]]

_BINS = 2048
# "percentile" clips one value in 1e4 on each side.
_KEPT = 0.9999


def quantize_after_training(
    fp32_model: Any, batches: _Batches, *, method: str = "minmax", saturation_safe: bool = False
) -> Any:
    """Quantise an FP32 model with ranges taken from representative frames.

    Args:
        fp32_model: The Keras FP32 model.
        batches: float32 (N, size, size, 3) in [-1, 127/128], from the training split. They are read twice.
        method: How each layer's range is chosen. ``minmax`` keeps the smallest and the largest value.
            ``percentile`` clips one value in 1e4 on each side. ``entropy`` takes the range whose 8-bit histogram
            has the least Kullback-Leibler divergence from the full one (Migacz, GTC 2017). Pooled features and
            logits have no outliers to clip and always use ``minmax``.
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
            ends if point.extreme else METHODS[method](histogram, _widened(ends))
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
    histograms = [np.zeros(_BINS) for _ in ranges]
    for values in _outputs(model, batches):
        for histogram, value, ends in zip(histograms, values, ranges, strict=True):
            histogram += np.histogram(value, bins=_BINS, range=_widened(ends))[0]
    return histograms


def _outputs(model: Any, batches: _Batches) -> Iterator[list[npt.NDArray[Any]]]:
    """Yield the outputs of the model for each batch."""
    for batch in batches:
        values = model(batch, training=False)
        yield [np.asarray(value) for value in (values if isinstance(values, list | tuple) else [values])]


def _widened(ends: _Range) -> _Range:
    """Return a range that is not empty."""
    return ends if ends[1] > ends[0] else (ends[0], ends[0] + 1e-6)


def _minmax(histogram: _Histogram, ends: _Range) -> _Range:
    return ends


def _percentile(histogram: _Histogram, ends: _Range) -> _Range:
    edges = np.linspace(*ends, _BINS + 1)
    share = np.cumsum(histogram) / histogram.sum()
    low = edges[np.searchsorted(share, 1 - _KEPT)]
    high = edges[np.searchsorted(share, _KEPT) + 1]
    return (min(0.0, float(low)), max(0.0, float(high)))


def _entropy(histogram: _Histogram, ends: _Range) -> _Range:
    """Cut the magnitudes where the divergence is least. A range that starts at 0 has twice the levels."""
    edges = np.linspace(*ends, _BINS + 1)
    middles = np.abs(edges[:-1] + edges[1:]) / 2
    largest = max(-ends[0], ends[1])
    magnitudes, _ = np.histogram(middles, bins=_BINS, range=(0, largest), weights=histogram)
    # The many zeros of a ReLU say nothing about where to cut, and would outweigh all other values.
    magnitudes[0] = magnitudes[1]
    levels = 256 if ends[0] == 0 else 128
    cuts = np.arange(levels, _BINS + 1, _BINS // 128)
    best = int(cuts[int(np.argmin([_divergence(magnitudes, int(cut), levels) for cut in cuts]))])
    limit = largest * best / _BINS
    return (max(ends[0], -limit), min(ends[1], limit))


def _divergence(magnitudes: _Histogram, cut: int, levels: int) -> float:
    """Return the Kullback-Leibler divergence between a cut histogram and the same in ``levels`` steps.

    The cut histogram has the first ``cut`` bins; the last of them also gets all values beyond the cut.
    """
    reference = magnitudes[:cut].copy()
    present = magnitudes[:cut] > 0
    reference[-1] += magnitudes[cut:].sum()
    level = np.arange(cut) * levels // cut
    total = np.bincount(level, weights=magnitudes[:cut], minlength=levels)
    filled = np.bincount(level, weights=present, minlength=levels)
    stepped = np.where(present, (total / np.maximum(filled, 1))[level], 0)
    p = reference / max(reference.sum(), 1)
    q = stepped / max(stepped.sum(), 1)
    return float(np.sum(np.where(p > 0, p * np.log(np.maximum(p, 1e-12) / np.maximum(q, 1e-12)), 0)))


METHODS: dict[str, Callable[[_Histogram, _Range], _Range]] = {
    "minmax": _minmax,
    "percentile": _percentile,
    "entropy": _entropy,
}
