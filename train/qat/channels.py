"""Which tensors of a network must have their channels scaled alike."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import TypeVar

__all__ = ["group_channels"]

K = TypeVar("K", bound=Hashable)


def group_channels(layers: Iterable[tuple[K, Sequence[K], bool]]) -> dict[K, K]:
    """A group's name for each tensor: what a layer without weights reads and writes is of one group.

    ``layers`` are (output, inputs, whether it has weights).
    """
    leader: dict[K, K] = {}

    def find(key: K) -> K:
        while leader.setdefault(key, key) != key:
            key = leader[key]
        return key

    for output, inputs, weighted in layers:
        find(output)
        for tensor in inputs:
            find(tensor)
            if not weighted:
                leader[find(tensor)] = find(output)
    return {key: find(key) for key in leader}
