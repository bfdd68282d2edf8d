"""The factors by which the channels between two layers are scaled, so that all of them have steps enough in 8 bits.

An 8-bit value has one scale for all its channels, so a channel of small values has few steps. Where only operations
stand between two layers that pass a positive factor on, a channel can be scaled up if the weights that read it are
scaled down. Source: Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction, ICCV 2019.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["MARGIN", "even_factors"]

MARGIN = 1.25
"""A scaled channel may exceed its largest value on the frames by this factor before a ceiling (ReLU6) cuts it."""


def even_factors(
    reach: npt.ArrayLike, *, ceiling: float | None, most: float, way: float = 1.0
) -> npt.NDArray[np.float64]:
    """Return a factor of 1 or more for each channel, which brings it nearer to the widest channel.

    Args:
        reach: The largest magnitude of each channel, (channels,).
        ceiling: The largest value that an operation between the layers lets through; None without one. No channel is
            scaled beyond ``ceiling / MARGIN``.
        most: The largest factor.
        way: How much of the way a channel goes, on a scale of logarithms: with 1 it reaches as far as the widest one.
    """
    largest = np.asarray(reach, np.float64)
    wanted = largest.max() if ceiling is None else min(largest.max(), ceiling / MARGIN)
    factors = (wanted / np.maximum(largest, 1e-6)) ** way
    # A channel that the frames never raise above 0 says nothing of its reach.
    return np.where(largest > 0, np.clip(factors, 1.0, most), 1.0)
