"""Give the channels of a twin equal reach before it is trained; its answers stay the same (``channel_factors``).

Networks that are quantised without training go half of the way (``channel_evening``). Training takes back what the
whole way costs the weights.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..channel_factors import even_factors
from ..facts import Floats
from ..network_layers import NetworkLayer

__all__ = ["ChannelPair", "even_channels", "find_pairs"]

_KERNELS = {"Conv2D": "kernel", "DepthwiseConv2D": "depthwise_kernel", "Dense": "kernel"}
# Layers that pass a positive factor of a channel on.
_PASSING = ("AveragePooling2D", "GlobalAveragePooling2D", "MaxPooling2D", "ReLU", "ZeroPadding2D")
# The largest factor of a channel. Beyond it, its reader's weights have too few steps if they share a scale.
_MOST, _MOST_DEPTHWISE = 4.0, 16.0


@dataclass(frozen=True)
class ChannelPair:
    """Two layers with weights, and the value between them.

    Attributes:
        writer: The name of the layer that computes the channels.
        value: The name of the layer whose output is rounded: the ReLU behind the writer, or the writer.
        reader: The name of the layer that reads the channels, and nothing else does.
        ceiling: The largest value that a ReLU between them lets through; None without one.
    """

    writer: str
    value: str
    reader: str
    ceiling: float | None = None


def find_pairs(layers: Sequence[NetworkLayer]) -> list[ChannelPair]:
    """Return the pairs of layers of a twin between which channels can be scaled."""
    readers: dict[str, list[NetworkLayer]] = {}
    for layer in layers:
        for name in layer.inputs:
            readers.setdefault(name, []).append(layer)
    found = []
    for layer in layers:
        at, value, ceiling = layer, layer.name, None
        while layer.kind in _KERNELS and len(readers.get(at.name, [])) == 1:
            (at,) = readers[at.name]
            if at.kind in _KERNELS:
                found.append(ChannelPair(layer.name, value, at.name, ceiling))
            if at.kind not in _PASSING:
                break
            if at.kind == "ReLU":
                value, ceiling = at.name, at.config.get("max_value") or ceiling
    return found


def even_channels(layers: Sequence[NetworkLayer], reach: Mapping[str, Floats]) -> tuple[NetworkLayer, ...]:
    """Return the layers with channels scaled up to the widest channel of each value.

    Args:
        layers: The layers of a twin.
        reach: The largest magnitude of each channel of the ``value`` of each pair, float (channels,).
    """
    by_name = {layer.name: layer for layer in layers}
    for pair in find_pairs(layers):
        writer, reader = by_name[pair.writer], by_name[pair.reader]
        most = _MOST_DEPTHWISE if reader.kind == "DepthwiseConv2D" else _MOST
        factors = even_factors(reach[pair.value], ceiling=pair.ceiling, most=most)
        by_name[pair.writer] = _scale_outputs(writer, factors)
        by_name[pair.reader] = _scale_inputs(by_name[pair.reader], 1 / factors)
    return tuple(by_name[layer.name] for layer in layers)


def _scale_outputs(layer: NetworkLayer, factors: np.ndarray) -> NetworkLayer:
    name = _KERNELS[layer.kind]
    shaped = factors[:, None] if layer.kind == "DepthwiseConv2D" else factors
    weights = {name: layer.weights[name] * shaped, "bias": layer.weights["bias"] * factors}
    return _with_weights(layer, weights)


def _scale_inputs(layer: NetworkLayer, factors: np.ndarray) -> NetworkLayer:
    name = _KERNELS[layer.kind]
    return _with_weights(layer, {**layer.weights, name: layer.weights[name] * factors[:, None]})


def _with_weights(layer: NetworkLayer, weights: Mapping[str, np.ndarray]) -> NetworkLayer:
    return dataclasses.replace(
        layer, weights={key: np.asarray(values, np.float32) for key, values in weights.items()}
    )
