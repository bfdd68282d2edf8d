"""Recognise which framework wrote a model file, by its content and without any framework."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any, Literal

from capsule_edge.runtime.errors import InputError, ModelError

__all__ = ["Kind", "read_keras_config", "recognise"]

Kind = Literal["keras", "tf_keras", "savedmodel", "tflite"]

_HDF5, _ZIP, _TFLITE = b"\x89HDF\r\n\x1a\n", b"PK\x03\x04", b"TFL3"
_MOST_CONFIG = 64 * 2**20
_ALLOWED = "allowed are .onnx, .keras, .h5, .tflite and the folder of a SavedModel"


def recognise(path: Path) -> Kind:
    """Return the format of a model file or folder.

    Args:
        path: a ``.keras`` or ``.h5`` file, a SavedModel folder, or a ``.tflite`` file.

    Returns:
        ``keras`` if Keras 3 wrote it, ``tf_keras`` if Keras 2 did (TensorFlow's own Keras until 2.15, tf_keras after
        it), ``savedmodel`` or ``tflite``.

    Raises:
        InputError: the file cannot be read.
        ModelError: the file is of none of these formats.
    """
    if path.is_dir():
        if (path / "saved_model.pb").is_file():
            return "savedmodel"
        raise ModelError(f"{path} is a folder without saved_model.pb, {_ALLOWED}")
    try:
        with path.open("rb") as file:
            head = file.read(8)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from None
    if head[4:] == _TFLITE:
        return "tflite"
    if head.startswith(_ZIP) or head == _HDF5:
        version, _ = read_keras_config(path)
        return "keras" if int(version.split(".")[0]) >= 3 else "tf_keras"
    raise ModelError(
        f"{path} is of no known format (it begins with the bytes {head[:4].hex(' ')}), {_ALLOWED}"
    )


def read_keras_config(path: Path) -> tuple[str, dict[str, Any]]:
    """Return the version of Keras that wrote a ``.keras`` or ``.h5`` file, and the configuration of the model.

    Raises:
        ModelError: the file lacks either, for instance because it holds weights alone.
    """
    try:
        version, config = (_from_zip if zipfile.is_zipfile(path) else _from_hdf5)(path)
        number, model = str(version), json.loads(config)
    except (OSError, KeyError, ValueError, zipfile.BadZipFile):
        number, model = "", None
    if not number[:1].isdigit() or not isinstance(model, dict) or "class_name" not in model:
        raise ModelError(
            f"{path} holds no Keras model: the version or the configuration is missing",
            hint="save the whole model (model.save), not its weights alone",
        )
    return number, model


def _from_zip(path: Path) -> tuple[Any, str]:
    with zipfile.ZipFile(path) as file:
        if file.getinfo("config.json").file_size > _MOST_CONFIG:
            raise ValueError("config.json is too large")
        return json.loads(file.read("metadata.json"))["keras_version"], file.read("config.json").decode()


def _from_hdf5(path: Path) -> tuple[Any, str]:
    import h5py

    with h5py.File(path, "r") as file:
        version, config = (file.attrs[name] for name in ("keras_version", "model_config"))
    return tuple(value.decode() if isinstance(value, bytes) else str(value) for value in (version, config))  # type: ignore[return-value]
