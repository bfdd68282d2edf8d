"""Which label a frame gets: the most probable one, and among equals the first, on every engine."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["most_probable"]

# Two 8-bit logits are equal in about one frame of 400. Engines compute the softmax behind them in float32, some lanes
# of a vector otherwise than the rest, so that equal ones come out up to 1e-7 apart.
_TIE = 1e-6


def most_probable(probabilities: npt.NDArray[Any]) -> npt.NDArray[np.intp]:
    """Index of the most probable label along the last axis; of those within 1e-6 of it, the first."""
    highest = probabilities.max(axis=-1, keepdims=True)
    return np.asarray((probabilities >= highest - _TIE).argmax(axis=-1), np.intp)
