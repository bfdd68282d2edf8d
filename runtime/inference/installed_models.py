"""Find the installed models: the model files that come with the package, each with a name."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from ..errors import ModelError

__all__ = ["INSTALLED", "default_model", "find_model"]

INSTALLED = {"standard": "capsule-edge.int8.onnx", "small": "capsule-edge-small.int8.onnx"}


def default_model(name: str = "standard") -> Path:
    """Return the path of an installed model.

    Args:
        name: a key of ``INSTALLED``.

    Raises:
        ModelError: this installation lacks the file.
    """
    path = Path(str(resources.files("capsule_edge.runtime") / "models" / INSTALLED[name]))
    if not path.is_file():
        raise ModelError(
            f"this installation has no {name} model, {path.name}",
            hint="name a model file, or install capsule-edge from a release",
        )
    return path


def find_model(model: str | Path) -> Path:
    """Return the path of a model file.

    Args:
        model: a path, or the name of an installed model (a key of ``INSTALLED``). An existing path goes first.

    Raises:
        ModelError: there is no such file.
    """
    path = Path(model)
    if not path.exists() and str(model) in INSTALLED:
        return default_model(str(model))
    if not path.is_file():
        hint = f"name a model file, or an installed model: {', '.join(INSTALLED)}"
        if (path / "run.json").is_file():
            hint = f"this is a training run; export its model files: capsule-edge export {path} --out DIR"
        if path.is_dir() and (found := sorted(path.glob("*.onnx"))):
            hint = f"this is a folder; name a file in it, such as {found[-1]}"
        raise ModelError(f"there is no model file at {path}", hint=hint)
    return path
