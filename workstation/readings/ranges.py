"""Sets of frames as half-open ranges of indices: ``[(start, end), ...]``, in order, none empty, none touching."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

__all__ = ["Ranges", "as_lists", "count", "intersect", "subtract", "unite"]

Ranges = list[tuple[int, int]]
"""Ranges in order and apart."""


def unite(*parts: Iterable[Sequence[int]]) -> Ranges:
    """Return the frames that lie in any of the parts.

    Args:
        parts: ranges (start, end) in any order; they may overlap.
    """
    united: Ranges = []
    for start, end in sorted((start, end) for part in parts for start, end in part if start < end):
        if united and start <= united[-1][1]:
            united[-1] = (united[-1][0], max(united[-1][1], end))
        else:
            united.append((start, end))
    return united


def intersect(one: Ranges, other: Ranges) -> Ranges:
    """Return the frames that lie in both."""
    shared: Ranges = []
    first, second = 0, 0
    while first < len(one) and second < len(other):
        start = max(one[first][0], other[second][0])
        end = min(one[first][1], other[second][1])
        if start < end:
            shared.append((start, end))
        if one[first][1] < other[second][1]:
            first += 1
        else:
            second += 1
    return shared


def subtract(one: Ranges, other: Ranges) -> Ranges:
    """Return the frames of ``one`` that do not lie in ``other``."""
    left: Ranges = []
    position = 0
    for start, end in one:
        while position < len(other) and other[position][1] <= start:
            position += 1
        at = position
        while at < len(other) and other[at][0] < end:
            if start < other[at][0]:
                left.append((start, other[at][0]))
            start = max(start, other[at][1])
            at += 1
        if start < end:
            left.append((start, end))
    return left


def count(ranges: Ranges) -> int:
    """Return the number of frames."""
    return sum(end - start for start, end in ranges)


def as_lists(ranges: Ranges) -> list[list[int]]:
    """Return the ranges as JSON values."""
    return [[start, end] for start, end in ranges]
