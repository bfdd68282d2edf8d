"""The models that come with the package, and the names that stand for their files."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from ..errors import ModelError

__all__ = ["INSTALLED", "default_model", "find_model"]

INSTALLED = {"standard": "capsule-edge.int8.onnx", "small": "capsule-edge-small.int8.onnx"}


def default_model(name: str = "standard") -> Path:
    """The model of that name that comes with the package (``INSTALLED``). ``ModelError`` where it does not."""
    path = Path(str(resources.files("capsule_edge.runtime") / "models" / INSTALLED[name]))
    if not path.is_file():
        raise ModelError(
            f"this installation has no {name} model, {path.name}",
            hint="name a model file, or install capsule-edge from a release",
        )
    return path


def find_model(model: str | Path) -> Path:
    """The file that ``model`` names: a path, or a name of ``INSTALLED``. ``ModelError`` where there is none."""
    path = Path(model)
    if not path.exists() and str(model) in INSTALLED:
        return default_model(str(model))
    if not path.is_file():
        hint = f"name a file, or an installed one: {', '.join(INSTALLED)}"
        if (path / "run.json").is_file():
            hint = f"it is a RUN, which 'train' left; make files of it: capsule-edge export {path} --out DIR"
        raise ModelError(f"no model file at {path}", hint=hint)
    return path
