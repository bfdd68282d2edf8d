"""Find the values of a twin that are rounded to 8 bits, as they are in the INT8 file of an adopted model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..network_layers import NetworkLayer

__all__ = ["RoundingPoints", "find_rounding_points"]

_KERNELS = ("Conv2D", "DepthwiseConv2D", "Dense")
# Layers from the last pooling on, which stay in float.
_HEAD = ("Flatten", "Reshape", "GlobalAveragePooling2D", "GlobalMaxPooling2D")
# Layers that make values of their own range; the others pass rounded values on.
_MAKING = ("Add", "AveragePooling2D", "BatchNormalization", "Concatenate", "GlobalAveragePooling2D", "ReLU")


@dataclass(frozen=True)
class RoundingPoints:
    """The parts of a twin that are rounded to 8 bits.

    Attributes:
        kernels: The names of the layers whose weights are rounded.
        outputs: The names of the layers whose output is rounded.
    """

    kernels: frozenset[str]
    outputs: frozenset[str]


def find_rounding_points(layers: Sequence[NetworkLayer]) -> RoundingPoints:
    """Return the rounding points of a twin, whose last layer computes the logits.

    The last layer with weights, and a pooling right before it, stay in float. Before a ReLU that is the only reader,
    nothing is rounded: the ReLU is the lower end of the range.
    """
    head = _head(layers)
    readers: dict[str, list[NetworkLayer]] = {}
    for layer in layers:
        for name in layer.inputs:
            readers.setdefault(name, []).append(layer)
    outputs = set()
    for layer in layers:
        behind = readers.get(layer.name, [])
        joined = len(behind) == 1 and behind[0].kind == "ReLU"
        if layer.kind in (*_KERNELS, *_MAKING) and layer.name not in head and not joined:
            outputs.add(layer.name)
    kernels = {layer.name for layer in layers if layer.kind in _KERNELS and layer.name not in head}
    return RoundingPoints(frozenset(kernels), frozenset(outputs))


def _head(layers: Sequence[NetworkLayer]) -> set[str]:
    """Return the names of the layers from the last pooling to the logits."""
    found: set[str] = set()
    by_name = {layer.name: layer for layer in layers}
    layer, has_kernel = layers[-1], False
    while layer.kind in _HEAD or (layer.kind in ("Dense", "Conv2D") and not has_kernel):
        has_kernel = has_kernel or layer.kind not in _HEAD
        found.add(layer.name)
        layer = by_name[layer.inputs[0]]
    return found
