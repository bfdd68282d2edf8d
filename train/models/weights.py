"""Weights by name: between tf_keras and Keras 3, and from a pretrained backbone into a model.

Stored as ``.npz`` with keys ``layer/variable`` (``bn_Conv1/gamma``), float32.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from capsule_edge.runtime.errors import InputError, OutputError

__all__ = ["assign", "collect", "load", "load_backbone", "save", "tensors"]

Arrays = dict[str, npt.NDArray[np.float32]]


def tensors(model: Any) -> dict[str, Any]:
    """Each weight of the model as ``layer/variable``, as tf_keras names them.

    tf_keras says ``layer/variable:0``, Keras 3 ``variable``, and calls a depthwise kernel just ``kernel``.
    """
    named = {}
    for layer in model.layers:
        depthwise = type(layer).__name__ == "DepthwiseConv2D"
        for weight in layer.weights:
            name = weight.name.split(":")[0].rsplit("/", 1)[-1]
            named[f"{layer.name}/{'depthwise_kernel' if depthwise and name == 'kernel' else name}"] = weight
    return named


def collect(model: Any) -> Arrays:
    return {name: np.asarray(weight, np.float32) for name, weight in tensors(model).items()}


def assign(model: Any, arrays: Arrays, *, fresh: tuple[str, ...] = ()) -> None:
    """Set the model's weights by name; those of the layers ``fresh`` are left as they are.

    Raises ``InputError`` when ``arrays`` lacks another weight of the model or holds it in another shape.
    """
    wanted = {n: w for n, w in tensors(model).items() if n.split("/")[0] not in fresh}
    missing = [name for name in wanted if name not in arrays]
    if missing:
        raise InputError(
            f"the weights lack {len(missing)} of the model's variables, first {missing[0]}",
            hint="they must be of the same architecture",
        )
    for name, weight in wanted.items():
        if tuple(weight.shape) != arrays[name].shape:
            raise InputError(f"weight {name} is {arrays[name].shape}, the model needs {tuple(weight.shape)}")
        weight.assign(arrays[name])


def save(path: Path, arrays: Mapping[str, npt.NDArray[Any]], *, compressed: bool = False) -> None:
    """Write atomically, so that a full disk leaves the earlier file."""
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as stream:
            (np.savez_compressed if compressed else np.savez)(stream, **arrays)  # type: ignore[arg-type]
        os.replace(partial, path)
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written: {error.strerror}", hint="the earlier file is whole"
        ) from None
    finally:
        partial.unlink(missing_ok=True)


def load(path: Path) -> Arrays:
    try:
        with np.load(path) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, BadZipFile) as error:
        raise InputError(f"{path} holds no weights: {error}") from None


def load_backbone(path: Path) -> Arrays:
    """A pretrained MobileNetV2 1.0 without top: our ``.npz``, or tf_keras's ``.h5`` of ``keras.applications``."""
    if path.suffix == ".npz":
        return load(path)
    import tf_keras

    backbone = tf_keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=(224, 224, 3))
    try:
        backbone.load_weights(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} holds no MobileNetV2 1.0 backbone: {error}") from None
    return collect(backbone)
