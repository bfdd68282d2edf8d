"""Convert pretrained weights of PyTorch to the names of our layers.

    python -m capsule_edge.train.models.pretrained efficientnet-lite2.pth efficientnet_lite2 backbone.npz

reads a state dictionary of EfficientNet-Lite with the tensor names of ``efficientnet_lite_pytorch`` (Apache
2.0): ImageNet weights that were converted from TensorFlow's. It writes the backbone for ``capsule-edge train
--weights``. Both scale pixels by about 1/128 around 128 and pad as TensorFlow does, so nothing else has to
change. Needs PyTorch.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

import numpy as np

from capsule_edge.runtime.errors import CapsuleEdgeError, InputError

from . import architectures, weights

__all__ = ["from_efficientnet_lite"]

_TENSORS = {
    "weight": "gamma",
    "bias": "beta",
    "running_mean": "moving_mean",
    "running_var": "moving_variance",
}
_PARTS = {
    "_expand_conv": "expand_conv", "_bn0": "expand_bn", "_depthwise_conv": "dwconv", "_bn1": "bn",
    "_project_conv": "project_conv", "_bn2": "project_bn",
}  # fmt: skip
_OUTSIDE = {"_conv_stem": "stem_conv", "_bn0": "stem_bn", "_conv_head": "top_conv", "_bn1": "top_bn"}


def from_efficientnet_lite(state: dict[str, Any], architecture: str) -> weights.Arrays:
    """Return the backbone's weights by the names of our layers.

    Args:
        state: the tensors, named as in ``efficientnet_lite_pytorch``.
        architecture: a name in ``ARCHITECTURES``.

    Raises:
        InputError: a tensor has no place in the architecture or has another shape, or one is missing.
    """
    import keras

    model = architectures.build(architecture, size=224, labels=2, keras=keras)
    wanted = {n: tuple(w.shape) for n, w in weights.tensors(model).items() if not n.startswith("logits/")}
    blocks = [name.removesuffix("_dwconv") for name in _layer_names(wanted) if name.endswith("_dwconv")]
    arrays: weights.Arrays = {}
    for key, tensor in state.items():
        if key.endswith("num_batches_tracked") or key.startswith("_fc."):
            continue
        name = _name(key, blocks)
        values = np.asarray(tensor, np.float32)
        if values.ndim == 4:
            values = (
                values.transpose(2, 3, 0, 1)
                if name.endswith("depthwise_kernel")
                else values.transpose(2, 3, 1, 0)
            )
        if wanted.get(name) != values.shape:
            raise InputError(f"{key} is {values.shape}, {architecture} has {wanted.get(name)} for {name}")
        arrays[name] = np.ascontiguousarray(values)
    if missing := wanted.keys() - arrays.keys():
        raise InputError(f"{len(missing)} tensors of {architecture} are missing, first {min(missing)}")
    return arrays


def _layer_names(wanted: dict[str, Any]) -> list[str]:
    """Return the names of the layers, in order."""
    return list(dict.fromkeys(name.split("/")[0] for name in wanted))


def _name(key: str, blocks: list[str]) -> str:
    """Return our name of a tensor."""
    inside = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", key)
    outside = re.fullmatch(r"(\w+)\.(\w+)", key)
    if inside and int(inside[1]) < len(blocks) and inside[2] in _PARTS:
        layer, tensor = f"{blocks[int(inside[1])]}_{_PARTS[inside[2]]}", inside[3]
    elif outside and outside[1] in _OUTSIDE:
        layer, tensor = _OUTSIDE[outside[1]], outside[2]
    else:
        raise InputError(f"{key} is no tensor name of EfficientNet-Lite")
    if not layer.endswith("conv"):
        return f"{layer}/{_TENSORS.get(tensor, tensor)}"
    return f"{layer}/{'depthwise_kernel' if layer.endswith('dwconv') else 'kernel'}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("state", type=Path, help=".pth file with a state dictionary")
    parser.add_argument(
        "architecture", choices=[name for name in architectures.ARCHITECTURES if "lite" in name]
    )
    parser.add_argument("out", type=Path, help=".npz file to write")
    options = parser.parse_args()
    import torch

    state = torch.load(options.state, map_location="cpu", weights_only=True)
    weights.save(options.out, from_efficientnet_lite(state, options.architecture))


if __name__ == "__main__":
    try:
        main()
    except CapsuleEdgeError as error:
        raise SystemExit(f"error: {error}") from None
