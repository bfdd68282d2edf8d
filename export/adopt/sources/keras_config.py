"""Check the configuration of a Keras model before Keras builds it: layers that it does not have, code, precision.

A configuration can name classes and functions that Keras imports and runs. Only Keras's own are let through.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from capsule_edge.runtime.errors import ModelError

__all__ = ["check_keras_config"]

_OWN = ("keras", "tf_keras")
_MODELS = ("Functional", "Sequential", "Model")
_ELSEWHERE = (
    "export it where its code is, to ONNX or as a SavedModel (model.export), and adopt that file instead"
)


def check_keras_config(path: Path, config: dict[str, Any]) -> None:
    """Refuse a configuration that needs code which Keras does not have, or that computes in another precision.

    Args:
        path: the file, for messages.
        config: the configuration of the whole model.

    Raises:
        ModelError: the message names the layer and its class.
    """
    if config["class_name"] not in _MODELS and not _is_own(config):
        raise ModelError(
            f"{path} is a subclassed model ({config['class_name']}), allowed are Functional and Sequential models",
            hint=_ELSEWHERE,
        )
    for entry in _entries(config):
        name, kind = _name(entry), entry["class_name"]
        if kind in ("Lambda", "__lambda__"):
            raise ModelError(
                f"{path}: layer {name!r} is a Lambda, which holds code and is not run", hint=_ELSEWHERE
            )
        if not _is_own(entry):
            raise ModelError(
                f"{path}: layer {name!r} is of the class {kind}, which is not part of Keras", hint=_ELSEWHERE
            )
        precision = _precision(entry)
        if precision not in (None, "float32"):
            raise ModelError(
                f"{path}: layer {name!r} computes in {precision}, allowed is float32",
                hint="build the model with the dtype policy float32, load its weights and save it again",
            )


def _entries(value: Any) -> Iterator[dict[str, Any]]:
    """Yield every part of a configuration that names a class to build, outermost first."""
    if isinstance(value, dict):
        if isinstance(value.get("class_name"), str) and "config" in value:
            yield value
        for part in value.values():
            yield from _entries(part)
    elif isinstance(value, list):
        for part in value:
            yield from _entries(part)


def _name(entry: dict[str, Any]) -> str:
    config = entry["config"]
    stated = config.get("name") if isinstance(config, dict) else config
    return str(stated or entry.get("name") or entry["class_name"])


def _is_own(entry: dict[str, Any]) -> bool:
    """Return whether a class is Keras's own, as far as the configuration says.

    A ``.keras`` file names the module of each class, and none for classes of the user's program. HDF5 files name no
    modules at all; there Keras looks the class up among its own when it builds the model.
    """
    if "module" not in entry:
        return True
    module = str(entry["module"])
    return module.split(".")[0] in _OWN or (module == "builtins" and entry["class_name"] == "function")


def _precision(entry: dict[str, Any]) -> str | None:
    """Return the name of a layer's dtype policy; None if it states none or is no layer."""
    policy = entry["config"].get("dtype") if isinstance(entry["config"], dict) else None
    if entry["class_name"] == "InputLayer":
        return None  # what an input holds is checked on the model
    if isinstance(policy, dict):
        inner = policy.get("config")
        policy = inner.get("name") if isinstance(inner, dict) else None
    return policy if isinstance(policy, str) else None
