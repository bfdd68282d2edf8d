"""Merge the branches of a re-parameterised model into plain convolutions (RepVGG, Ding et al., CVPR 2021).

A 1x1 kernel is a 3x3 kernel with zeros around it. An identity is a 1x1 kernel with ones on the diagonal. The
normalisation of each branch is folded into its kernel; then kernels and biases are added up.
"""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt

from .weights import Arrays

__all__ = ["merge"]

Floats = npt.NDArray[np.float64]

_EPSILON = 1e-3  # epsilon of the normalisations in ``architectures``
_BRANCH = re.compile(r"(?P<layer>.+)_(?P<branch>3x3|1x1|identity)(?P<norm>_bn)?/(?P<variable>\w+)")


def merge(arrays: Arrays) -> Arrays:
    """Return the plain model's weights from the branched model's, both by name.

    Layers without branches stay unchanged.
    """
    layers: dict[str, dict[str, Floats]] = {}
    plain: Arrays = {}
    for name, array in arrays.items():
        match = _BRANCH.fullmatch(name)
        if match is None:
            plain[name] = array
        else:
            part = f"{match['branch']}/{match['variable']}"
            layers.setdefault(match["layer"], {})[part] = array.astype(np.float64)
    for layer, parts in layers.items():
        kernel, bias = _merge_layer(parts)
        plain[f"{layer}/kernel"] = kernel.astype(np.float32)
        plain[f"{layer}/bias"] = bias.astype(np.float32)
    return plain


def _merge_layer(parts: dict[str, Floats]) -> tuple[Floats, Floats]:
    """Return kernel and bias of the plain convolution, from the weights of a layer's branches."""
    kernel = np.zeros_like(parts["3x3/kernel"])
    bias = np.zeros(kernel.shape[-1])
    for branch in ("3x3", "1x1", "identity"):
        if f"{branch}/gamma" not in parts:
            continue
        factor = parts[f"{branch}/gamma"] / np.sqrt(parts[f"{branch}/moving_variance"] + _EPSILON)
        bias += parts[f"{branch}/beta"] - parts[f"{branch}/moving_mean"] * factor
        if branch == "3x3":
            kernel += parts["3x3/kernel"] * factor
        else:
            tap = parts["1x1/kernel"][0, 0] if branch == "1x1" else np.eye(len(factor))
            # With a stride of 2 on an even side, "same" pads only behind. The 3x3 window then begins where the 1x1
            # window lies. Only a layer without a stride has an identity branch.
            at = 1 if "identity/gamma" in parts else 0
            kernel[at, at] += tap * factor
    return kernel, bias
