"""Fold the batch normalisations of a planned twin into the layers before them, with their trained statistics.

The twin then rounds the weights that the INT8 file holds, and the statistics cannot change in training. A normalisation
that does not stand right behind a convolution or a dense layer stays, frozen. Source: Jacob et al., CVPR 2018.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence

import numpy as np

from ..facts import Floats
from ..network_layers import NetworkLayer

__all__ = ["fold_norms"]

_FOLDABLE = {"Conv2D": "kernel", "DepthwiseConv2D": "depthwise_kernel", "Dense": "kernel"}


def fold_norms(layers: Sequence[NetworkLayer]) -> tuple[NetworkLayer, ...]:
    """Return the layers with normalisations folded into the layers that they alone read.

    Args:
        layers: The layers of a twin. Those with a kernel have a bias and no activation.
    """
    readers = Counter(name for layer in layers for name in layer.inputs)
    made: dict[str, NetworkLayer] = {}
    replaced: dict[str, str] = {}
    for layer in layers:
        inputs = tuple(replaced.get(name, name) for name in layer.inputs)
        before = made.get(inputs[0]) if inputs else None
        if (
            layer.kind == "BatchNormalization"
            and before is not None
            and before.kind in _FOLDABLE
            and readers[layer.inputs[0]] == 1
        ):
            made[before.name] = _fold(before, layer)
            replaced[layer.name] = before.name
        else:
            made[layer.name] = dataclasses.replace(layer, inputs=inputs)
    return tuple(made.values())


def _fold(layer: NetworkLayer, norm: NetworkLayer) -> NetworkLayer:
    """Merge a normalisation into kernel and bias, in float64."""
    stored = {name: np.asarray(values, np.float64) for name, values in norm.weights.items()}
    factor = stored.get("gamma", 1.0) / np.sqrt(stored["moving_variance"] + norm.config["epsilon"])
    name = _FOLDABLE[layer.kind]
    kernel = layer.weights[name].astype(np.float64)
    shaped = factor[:, None] if layer.kind == "DepthwiseConv2D" else factor
    bias = (layer.weights["bias"] - stored["moving_mean"]) * factor + stored.get("beta", 0.0)
    weights: dict[str, Floats] = {name: (kernel * shaped).astype(np.float32), "bias": bias.astype(np.float32)}
    return dataclasses.replace(layer, weights=weights)
