"""Sets of frames as ranges, compared with sets of numbers."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from capsule_edge.workstation.readings import count, intersect, subtract, unite

_PAIRS = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=8)


def _frames(ranges: list[tuple[int, int]]) -> set[int]:
    return {index for start, end in ranges for index in range(start, end)}


@given(_PAIRS, _PAIRS)
def test_ranges_are_sets_of_frames(one: list[tuple[int, int]], other: list[tuple[int, int]]) -> None:
    first, second = unite(one), unite(other)
    assert _frames(first) == _frames(one)
    for made, expected in (
        (unite(one, other), _frames(one) | _frames(other)),
        (intersect(first, second), _frames(one) & _frames(other)),
        (subtract(first, second), _frames(one) - _frames(other)),
    ):
        assert _frames(made) == expected
        assert count(made) == len(expected)
        # In order, none empty; none overlapping.
        assert all(start < end for start, end in made)
        assert all(before[1] <= after[0] for before, after in pairwise(made))
