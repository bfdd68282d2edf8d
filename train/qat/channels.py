"""Find the tensors of a network whose channels must be scaled alike."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import TypeVar

__all__ = ["group_channels"]

K = TypeVar("K", bound=Hashable)


def group_channels(layers: Iterable[tuple[K, Sequence[K], bool]]) -> dict[K, K]:
    """Return a group for each tensor. A layer without weights reads and writes tensors of the same group.

    Args:
        layers: (output, inputs, whether it has weights) of each layer, in order.

    Returns:
        The group of each tensor, named by one of its tensors.
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
