"""Weights by name: carry them between tf_keras and Keras 3, and from a pretrained backbone into a model.

They are stored as ``.npz`` with keys ``layer/variable`` (``bn_Conv1/gamma``), float32.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from capsule_edge.runtime.errors import InputError
from capsule_edge.runtime.results import clear_abandoned, whole_file

__all__ = ["assign", "collect", "hash_arrays", "load", "load_backbone", "save", "tensors"]

Arrays = dict[str, npt.NDArray[np.float32]]


def tensors(model: Any) -> dict[str, Any]:
    """Return each weight of the model by its name ``layer/variable``, as tf_keras names it.

    tf_keras calls a weight ``layer/variable:0``, Keras 3 ``variable``. Keras 3 calls a depthwise kernel
    ``kernel``.
    """
    named = {}
    for layer in model.layers:
        depthwise = type(layer).__name__ == "DepthwiseConv2D"
        for weight in layer.weights:
            name = weight.name.split(":")[0].rsplit("/", 1)[-1]
            named[f"{layer.name}/{'depthwise_kernel' if depthwise and name == 'kernel' else name}"] = weight
    return named


def collect(model: Any) -> Arrays:
    """Return copies of the model's weights by name, float32."""
    return {name: np.asarray(weight, np.float32) for name, weight in tensors(model).items()}


def assign(model: Any, arrays: Arrays, *, fresh: tuple[str, ...] = ()) -> None:
    """Set the model's weights by name.

    Args:
        model: a tf_keras or Keras 3 model.
        arrays: the weights by name. Names that the model lacks are ignored.
        fresh: layers that keep their weights.

    Raises:
        InputError: ``arrays`` lack a weight of the model, or have it in another shape.
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


def hash_arrays(arrays: Arrays) -> str:
    """Return the SHA-256 of weights: of their names, shapes and values."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].shape} ".encode())
        digest.update(np.ascontiguousarray(arrays[name], "<f4").tobytes())
    return digest.hexdigest()


def save(path: Path, arrays: Mapping[str, npt.NDArray[Any]], *, compressed: bool = False) -> None:
    """Write arrays to a ``.npz`` file, whole or not at all: if the disk is full, the earlier file stays.

    Raises:
        OutputError: the file cannot be written.
    """
    clear_abandoned(path)
    with whole_file(path, hint="the earlier file is intact") as temporary, temporary.open("wb") as stream:
        (np.savez_compressed if compressed else np.savez)(stream, **arrays)  # type: ignore[arg-type]


def load(path: Path) -> Arrays:
    """Read all arrays of a ``.npz`` file.

    Raises:
        InputError: the file cannot be read or is damaged.
    """
    try:
        with np.load(path) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, BadZipFile) as error:
        raise InputError(f"{path} holds no weights: {error}") from None


def load_backbone(path: Path) -> Arrays:
    """Read a pretrained MobileNetV2 1.0 without top: our ``.npz``, or the ``.h5`` of ``keras.applications``.

    Raises:
        InputError: the file cannot be read or holds another network.
    """
    if path.suffix == ".npz":
        return load(path)
    import tf_keras

    backbone = tf_keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=(224, 224, 3))
    try:
        backbone.load_weights(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} holds no MobileNetV2 1.0 backbone: {error}") from None
    return collect(backbone)
