"""Describe the colours and the texture of model inputs, and set aside those unlike the training frames.

The statistics are those of some 400 points on a grid inside the field of view. They need no model, so every inference
engine sets the same frames aside. All sums are of integers, and what follows is rounded alike on every processor: the
result for a frame depends neither on its batch nor on the machine.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from ..inference import APPEARANCE, FamiliarityRule

__all__ = ["AppearanceDistance", "describe_appearance"]

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]

# Points of the grid along each side of the model's input.
_SIDE = 20
# The grid ends before the edge of the field of view, which is black in one capsule and blurred in another.
_REACH = 0.94
_DECIMALS = 6


def describe_appearance(pixels: Pixels) -> Floats:
    """Return the statistics of ``APPEARANCE`` for model inputs.

    Args:
        pixels: uint8 RGB (n, size, size, 3), from ``preprocess``.

    Returns:
        float64 (n, statistics). Means and deviations are in levels (0..255), and shares are in percent under a square
        root: this makes a share that is small in every training frame count.
    """
    count, size = pixels.shape[:2]
    if not count:
        return np.empty((0, len(APPEARANCE)))
    triples = pixels.reshape(count, -1).view("V3").take(_grid(size), axis=1).view(np.uint8)
    # By channel, contiguous: (3, n, points), and the pixels beside the points likewise.
    planes = np.ascontiguousarray(triples.reshape(count, -1, 3).transpose(2, 0, 1))
    points = planes.shape[2] // 2
    red, green, blue = planes.astype(np.int16)
    brightness = red + green + blue
    edges = np.abs(brightness[:, :points] - brightness[:, points:])
    mean, deviations = _moments(planes[:, :, :points])
    total = mean.sum(axis=1) + 15
    return np.column_stack(
        [
            mean,
            deviations,
            100 * mean[:, 0] / total,
            100 * mean[:, 2] / total,
            _shares(planes[:, :, :points], edges),
            np.sqrt(edges.sum(axis=1, dtype=np.int32) / points),
        ]
    )


class AppearanceDistance:
    """The distance of model inputs from the training frames: Mahalanobis's, on ``describe_appearance``.

    Args:
        rule: of the model, with the measure ``appearance``.
    """

    def __init__(self, rule: FamiliarityRule) -> None:
        self._threshold = round(rule.threshold, _DECIMALS)
        self._mean = np.array(rule.parameters.mean)
        self._whitening = np.array(rule.parameters.whitening)

    def measure(self, pixels: Pixels) -> Floats:
        """Return the distances, float64 (n,), of model inputs, uint8 RGB (n, size, size, 3)."""
        return self.of_statistics(describe_appearance(pixels))

    def of_statistics(self, statistics: Floats) -> Floats:
        """Return the distances, float64 (n,), of rows of ``describe_appearance``, rounded to six decimals.

        A distance is NaN or infinite if the numbers of the rule are too large for float64.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            centred = statistics - self._mean
            # No matrix product: BLAS adds in an order that depends on the number of rows.
            white = (centred[:, None, :] * self._whitening).sum(axis=2)
            return np.asarray(np.round(np.sqrt((white * white).sum(axis=1)), _DECIMALS), np.float64)

    def is_unfamiliar(self, pixels: Pixels) -> npt.NDArray[np.bool_]:
        """Return True for each model input that has to be set aside, bool (n,)."""
        return ~np.asarray(self.measure(pixels) <= self._threshold, np.bool_)


@lru_cache(maxsize=8)
def _grid(size: int) -> npt.NDArray[np.intp]:
    """Return the places of the points in a model input, then those of the pixels beside them; flat indices.

    The points lie inside the field of view. The pixel beside a point is the next one on the diagonal.
    """
    side = (2 * np.arange(_SIDE) + 1) * size // (2 * _SIDE)
    from_centre = side + 0.5 - size / 2
    radius = min(_REACH * size / 2, size / 2 - 1.5)
    rows, columns = np.nonzero(from_centre[:, None] ** 2 + from_centre[None, :] ** 2 <= radius**2)
    at = side[rows] * size + side[columns]
    return np.concatenate([at, at + size + 1])


def _moments(planes: Pixels) -> tuple[Floats, Floats]:
    """Return the means (n, 3) of channels (3, n, points), and the deviations of R, G, B, R - G and G - B (n, 5)."""
    points = planes.shape[2]
    # Less 128, all sums of products stay below 2**24: float32 adds such integers exactly, in any order.
    centred = planes.astype(np.float32) - np.float32(128)
    sums = np.matmul(centred, np.ones(points, np.float32)).astype(np.float64)
    squares = np.einsum("cnp,cnp->cn", centred, centred).astype(np.float64)
    products = np.einsum("cnp,cnp->cn", centred[:2], centred[1:]).astype(np.float64)
    variances = points * squares - sums * sums
    covariances = points * products - sums[:2] * sums[1:]
    pairs = variances[:2] + variances[1:] - 2 * covariances
    return (128 + sums / points).T, (np.sqrt(np.concatenate([variances, pairs])) / points).T


def _shares(planes: Pixels, edges: npt.NDArray[np.int16]) -> Floats:
    """Return the root of the shares, in percent, of points of each kind: (n, 8)."""
    red, green, blue = planes
    cooler = np.maximum(green, blue)
    highest, lowest = np.maximum(red, cooler), np.minimum(np.minimum(red, green), blue)
    chroma, lit = highest - lowest, highest >= 40
    kinds = np.empty((8, *red.shape), np.bool_)
    np.less(highest, 24, out=kinds[0])
    np.greater(lowest, 200, out=kinds[1])
    # The chroma is below a sixth of the brightest channel, below a quarter, and above nine tenths.
    np.logical_and(lit, chroma < highest // 6, out=kinds[2])
    np.logical_and(lit, chroma < highest // 4, out=kinds[3])
    np.logical_and(cooler > red, highest >= 24, out=kinds[4])
    np.logical_and(lit, lowest < highest // 10, out=kinds[5])
    np.greater_equal(edges, 60, out=kinds[6])
    np.greater_equal(edges, 135, out=kinds[7])
    counts = kinds.view(np.uint8).sum(axis=2, dtype=np.int32)
    return np.asarray(np.sqrt(100 * counts.T / planes.shape[2]), np.float64)
