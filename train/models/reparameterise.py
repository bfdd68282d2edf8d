"""Merge the branches of a re-parameterised model into the plain convolutions that ship.

A 1x1 kernel is a 3x3 one with zeros around it, an identity a 1x1 kernel of ones on the diagonal; each branch's
normalisation folds into its kernel, and kernels and biases add up (RepVGG, Ding et al., CVPR 2021).
"""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt

from .weights import Arrays

__all__ = ["merge"]

Floats = npt.NDArray[np.float64]

_EPSILON = 1e-3  # of models._normalise
_BRANCH = re.compile(r"(?P<layer>.+)_(?P<branch>3x3|1x1|identity)(?P<norm>_bn)?/(?P<variable>\w+)")


def merge(arrays: Arrays) -> Arrays:
    """The plain model's weights from the branched one's, both by name; layers without branches stay as they are."""
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
                # Where a stride of 2 halves an even side, "same" pads behind alone: the 3x3 window begins where the
                # 1x1 one lies. Only a layer without a stride has an identity.
                at = 1 if "identity/gamma" in parts else 0
                kernel[at, at] += tap * factor
        plain[f"{layer}/kernel"] = kernel.astype(np.float32)
        plain[f"{layer}/bias"] = bias.astype(np.float32)
    return plain
