"""Carry the ranges that training set over to the converted network, whose values have other names.

A value of the converted network and one of the twin are the same if they have the same mean, deviation and ends on some
frames. The order of their axes does not matter then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..activation_ranges import Range
from ..facts import Floats
from ..float_body import PIXELS, FloatBody
from ..quantiser import activations_of
from ..sessions import open_session, with_outputs

__all__ = ["TrainedRange", "carry_ranges", "describe_values"]

# Float32 sums in another order, relative to the deviation of the values.
_TOLERANCE = 1e-3


@dataclass(frozen=True)
class TrainedRange:
    """The range of one value of a twin.

    Attributes:
        marks: Mean, deviation, smallest and largest value on the frames.
        low: The lower end of the range.
        high: The upper end of the range.
    """

    marks: tuple[float, ...]
    low: float
    high: float


def describe_values(values: Any) -> tuple[float, ...]:
    """Return mean, deviation, smallest and largest of some values."""
    flat = np.asarray(values, np.float64)
    return float(flat.mean()), float(flat.std()), float(flat.min()), float(flat.max())


def carry_ranges(body: FloatBody, pixels: Floats, trained: Sequence[TrainedRange]) -> Mapping[str, Range]:
    """Return the trained range of each value of a network that is one of the twin's, by its name.

    Args:
        body: The converted network.
        pixels: Its input for the frames that ``trained`` was described on.
        trained: The ranges of the twin.
    """
    names = [name for name in activations_of(body) if name != PIXELS]
    session = open_session(with_outputs(body.proto, *names), optimise="basic")
    found = {}
    for name, values in zip(names, session.run(names, {PIXELS: pixels}), strict=True):
        marks = describe_values(values)
        for each in trained:
            if np.allclose(marks, each.marks, rtol=0, atol=_TOLERANCE * max(marks[1], 1e-12)):
                found[name] = (each.low, each.high)
                break
    return found
