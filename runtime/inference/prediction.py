"""Choose the label of a frame: the most probable one; of equally probable ones the first, on every engine."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["most_probable"]

# Two 8-bit logits are equal in about one frame of 400. Engines compute the softmax in float32, and not in the same way
# for every element of a vector. So the probabilities of two equal logits can differ by up to 1e-7.
_TIE = 1e-6


def most_probable(probabilities: npt.NDArray[Any]) -> npt.NDArray[np.intp]:
    """Return the index of the most probable label along the last axis.

    Labels within 1e-6 of the highest probability count as equal; the first of them is returned.

    Args:
        probabilities: float (..., labels), 0..1.

    Returns:
        Integer array (...).
    """
    highest = probabilities.max(axis=-1, keepdims=True)
    return np.asarray((probabilities >= highest - _TIE).argmax(axis=-1), np.intp)
