"""Run a float network on frames and choose the range of each activation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..contract import FrameArray
from ..int8 import BINS, METHODS, widened
from .float_body import PIXELS, FloatBody
from .graph import Graph
from .sessions import open_session, with_outputs

__all__ = ["Histograms", "choose_ranges", "collect_histograms"]

Range = tuple[float, float]
# A histogram of BINS bins by the activation's name, and the range that it covers.
Histograms = Mapping[str, tuple[npt.NDArray[np.float64], Range]]
_BATCH = 8
_FLAT_SWISH, _FLAT_SIGMOID = 6.0, 8.0


def collect_histograms(body: FloatBody, names: Sequence[str], frames: FrameArray) -> Histograms:
    """Return the histogram of each activation over its own range.

    Args:
        body: The float network.
        names: The activations.
        frames: uint8 RGB (N, size, size, 3), run twice.
    """
    ends = dict.fromkeys(names, (0.0, 0.0))
    for values in _run(body, names, frames):
        for name, value in values.items():
            low, high = ends[name]
            ends[name] = min(low, float(value.min())), max(high, float(value.max()))
    ends = {name: widened(each) for name, each in ends.items()}
    counts = {name: np.zeros(BINS) for name in names}
    for values in _run(body, names, frames):
        for name, value in values.items():
            counts[name] += _count(value, ends[name])
    return {name: (counts[name], ends[name]) for name in names}


def _count(values: npt.NDArray[np.float32], ends: Range) -> npt.NDArray[np.float64]:
    low, high = ends
    bins = ((values.reshape(-1) - np.float32(low)) * np.float32(BINS / (high - low))).astype(np.int32)
    return np.bincount(np.clip(bins, 0, BINS - 1), minlength=BINS).astype(np.float64)


def _run(body: FloatBody, names: Sequence[str], frames: FrameArray) -> Iterator[dict[str, Any]]:
    session = open_session(with_outputs(body.proto, *(name for name in names if name != PIXELS)))
    wanted = [value.name for value in session.get_outputs()]
    for start in range(0, len(frames), _BATCH):
        pixels = body.entry.apply(frames[start : start + _BATCH])
        found = dict(zip(wanted, session.run(wanted, {PIXELS: pixels}), strict=True))
        if PIXELS in names:
            found[PIXELS] = pixels
        yield found


def choose_ranges(
    body: FloatBody, histograms: Histograms, method: str, *, exact: Mapping[str, Range]
) -> dict[str, Range]:
    """Return the range of each activation.

    Args:
        body: The float network.
        histograms: From ``collect_histograms``.
        method: A key of ``int8.METHODS``.
        exact: Ranges that are known, by name, such as that of the pixels.
    """
    choose = METHODS[method]
    graph = Graph(body.proto)
    return {
        name: exact[name] if name in exact else widened(_cut(graph, name, choose(counts, ends)))
        for name, (counts, ends) in histograms.items()
    }


def _cut(graph: Graph, name: str, ends: Range) -> Range:
    """Cut a range where a sigmoid behind it has become flat.

    Below -6 a swish is above -0.015, and beyond -8 and 8 a sigmoid lies within 0.0004 of 0 and 1. Without the cut, the
    long tails of such activations take most of the steps.
    """
    readers = {node.op_type for node in graph.readers.get(name, [])}
    low, high = ends
    if readers == {"Sigmoid", "Mul"}:
        return max(low, -_FLAT_SWISH), high
    return (max(low, -_FLAT_SIGMOID), min(high, _FLAT_SIGMOID)) if readers == {"Sigmoid"} else ends
