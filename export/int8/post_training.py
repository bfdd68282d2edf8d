"""Post-training quantisation: the same INT8 model without training, with ranges chosen from a histogram of
each layer.

It shows what QAT buys, and is what a user without training data has. Only the ranges differ from QAT's
model, so the same integers, files and checks follow.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import tf_keras

from capsule_edge.runtime.errors import InputError, UsageError
from capsule_edge.train.qat import observed_ranges, quantize, set_ranges

__all__ = ["METHODS", "Method", "quantize_after_training"]

Method = Literal["minmax", "percentile", "entropy"]
Range = tuple[float, float]
Counts = npt.NDArray[np.float64]

_BINS = 2048
# Share of a layer's values kept by "percentile": one in 1e4 is clipped on each side.
_KEPT = 0.9999


def quantize_after_training(
    fp32_model: Any,
    batches: Sequence[npt.NDArray[np.float32]],
    *,
    method: Method = "minmax",
    saturation_safe: bool = False,
) -> Any:
    """The quantised model (as of ``train.qat.quantize``) with ranges from ``batches``, and no training.

    ``batches`` are float32 (N, s, s, 3) in [-1, 127/128] from the training split, read twice. ``minmax``
    keeps the outermost values, ``percentile`` all but one in 1e4 on each side, ``entropy`` the range whose
    8-bit histogram has the least Kullback-Leibler divergence from the full one (Migacz, GTC 2017). Pooled
    features and logits, which have no outliers to shed, are always ``minmax``.

    Raises ``UsageError`` for a method that is not known and ``InputError`` when there is no batch.
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
    outermost = [(0.0, 0.0)] * len(points)
    for values in _outputs(watched, batches):
        pairs = zip(outermost, values, strict=True)
        outermost = [(min(low, float(v.min())), max(high, float(v.max()))) for (low, high), v in pairs]
    if method != "minmax":
        counts = [np.zeros(_BINS) for _ in points]
        for values in _outputs(watched, batches):
            for count, value, ends in zip(counts, values, outermost, strict=True):
                count += np.histogram(value, bins=_BINS, range=_widened(ends))[0]
        outermost = [
            ends if point.extreme else METHODS[method](count, _widened(ends))
            for point, count, ends in zip(points, counts, outermost, strict=True)
        ]
    set_ranges(quantised, {point.layer: ends for point, ends in zip(points, outermost, strict=True)})
    return quantised


def _outputs(model: Any, batches: Sequence[npt.NDArray[np.float32]]) -> Any:
    for batch in batches:
        values = model(batch, training=False)
        yield [np.asarray(value) for value in (values if isinstance(values, list | tuple) else [values])]


def _widened(ends: Range) -> Range:
    return ends if ends[1] > ends[0] else (ends[0], ends[0] + 1e-6)


def _minmax(counts: Counts, ends: Range) -> Range:
    return ends


def _percentile(counts: Counts, ends: Range) -> Range:
    edges = np.linspace(*ends, _BINS + 1)
    share = np.cumsum(counts) / counts.sum()
    low = edges[np.searchsorted(share, 1 - _KEPT)]
    high = edges[np.searchsorted(share, _KEPT) + 1]
    return (min(0.0, float(low)), max(0.0, float(high)))


def _entropy(counts: Counts, ends: Range) -> Range:
    """The symmetric cut of the magnitudes with the least divergence; a range from 0 has twice the levels."""
    edges = np.linspace(*ends, _BINS + 1)
    middles = np.abs(edges[:-1] + edges[1:]) / 2
    largest = max(-ends[0], ends[1])
    magnitudes, _ = np.histogram(middles, bins=_BINS, range=(0, largest), weights=counts)
    # A ReLU's zeros say nothing about where to cut, and would swamp the rest.
    magnitudes[0] = magnitudes[1]
    levels = 256 if ends[0] == 0 else 128
    cuts = np.arange(levels, _BINS + 1, _BINS // 128)
    best = int(cuts[int(np.argmin([_divergence(magnitudes, int(cut), levels) for cut in cuts]))])
    limit = largest * best / _BINS
    return (max(ends[0], -limit), min(ends[1], limit))


def _divergence(counts: Counts, cut: int, levels: int) -> float:
    """Of the first ``cut`` bins, what lies beyond put into the last, from the same in ``levels`` steps."""
    reference = counts[:cut].copy()
    present = counts[:cut] > 0
    reference[-1] += counts[cut:].sum()
    group = np.arange(cut) * levels // cut
    total = np.bincount(group, weights=counts[:cut], minlength=levels)
    filled = np.bincount(group, weights=present, minlength=levels)
    stepped = np.where(present, (total / np.maximum(filled, 1))[group], 0)
    p = reference / max(reference.sum(), 1)
    q = stepped / max(stepped.sum(), 1)
    return float(np.sum(np.where(p > 0, p * np.log(np.maximum(p, 1e-12) / np.maximum(q, 1e-12)), 0)))


METHODS: dict[str, Callable[[Counts, Range], Range]] = {
    "minmax": _minmax,
    "percentile": _percentile,
    "entropy": _entropy,
}
