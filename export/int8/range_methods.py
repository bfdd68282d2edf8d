"""Choose the range of an activation from a histogram of its values: four methods."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

__all__ = ["BINS", "METHODS", "widened"]

_Range = tuple[float, float]
_Histogram = npt.NDArray[np.float64]

BINS = 2048
# "percentile" clips one value in 1e4 on each side.
_KEPT = 0.9999
# "mse" tries a cut at every so many bins.
_STEP = 8


def widened(ends: _Range) -> _Range:
    """Return a range that is not empty."""
    return ends if ends[1] > ends[0] else (ends[0], ends[0] + 1e-6)


def _minmax(histogram: _Histogram, ends: _Range) -> _Range:
    return ends


def _percentile(histogram: _Histogram, ends: _Range) -> _Range:
    edges = np.linspace(*ends, BINS + 1)
    share = np.cumsum(histogram) / histogram.sum()
    low = edges[np.searchsorted(share, 1 - _KEPT)]
    high = edges[np.searchsorted(share, _KEPT) + 1]
    return (min(0.0, float(low)), max(0.0, float(high)))


def _entropy(histogram: _Histogram, ends: _Range) -> _Range:
    """Cut the magnitudes where the divergence is least. A range that starts at 0 has twice the levels."""
    edges = np.linspace(*ends, BINS + 1)
    middles = np.abs(edges[:-1] + edges[1:]) / 2
    largest = max(-ends[0], ends[1])
    magnitudes, _ = np.histogram(middles, bins=BINS, range=(0, largest), weights=histogram)
    # The many zeros of a ReLU say nothing about where to cut, and would outweigh all other values.
    magnitudes[0] = magnitudes[1]
    levels = 256 if ends[0] == 0 else 128
    cuts = np.arange(levels, BINS + 1, BINS // 128)
    best = int(cuts[int(np.argmin([_divergence(magnitudes, int(cut), levels) for cut in cuts]))])
    limit = largest * best / BINS
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


def _least_error(histogram: _Histogram, ends: _Range) -> _Range:
    """Cut where the mean squared error, of rounding inside and of clipping outside, is least."""
    edges = np.linspace(*ends, BINS + 1)
    middles = (edges[:-1] + edges[1:]) / 2
    zero = int(np.argmin(np.abs(middles)))
    # Zero keeps its value: it is one of the levels.
    rounded = histogram.sum() - histogram[zero]
    if not rounded:
        return ends
    highs = edges[zero + 1 :: _STEP] if ends[1] > 0 else np.zeros(1)
    lows = edges[zero::-_STEP] if ends[0] < 0 else np.zeros(1)
    highs, lows = (
        np.append(np.maximum(highs, 0), max(ends[1], 0)),
        np.append(np.minimum(lows, 0), min(ends[0], 0)),
    )
    above = [float(histogram @ np.maximum(middles - high, 0) ** 2) for high in highs]
    below = [float(histogram @ np.maximum(low - middles, 0) ** 2) for low in lows]
    step = (highs[None] - lows[:, None]) / 255
    error = step**2 / 12 * rounded + np.asarray(above)[None] + np.asarray(below)[:, None]
    low, high = np.unravel_index(int(np.argmin(error)), error.shape)
    return (float(lows[low]), float(highs[high]))


METHODS: dict[str, Callable[[_Histogram, _Range], _Range]] = {
    "minmax": _minmax,
    "percentile": _percentile,
    "entropy": _entropy,
    "mse": _least_error,
}
