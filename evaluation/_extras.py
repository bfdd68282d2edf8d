"""What an extra brings is imported where it is used, and its absence said in one line."""

from __future__ import annotations

from importlib.util import find_spec

from capsule_edge.runtime.errors import PackageError

__all__ = ["TRAINING", "require"]

# Looked for before anything is imported: without TensorFlow some of these print to stdout.
TRAINING = ("tensorflow", "tf_keras", "tensorflow_model_optimization")


def require(*modules: str, extra: str = "eval", what: str = "") -> None:
    """Raise ``PackageError`` when one of ``modules`` of an extra is not installed; ``what`` is what needs it."""
    for module in modules:
        if find_spec(module) is None:
            lacks = f"{what} needs {module}, which is not installed" if what else f"{module} is not installed"
            raise PackageError(lacks, hint=f"pip install 'capsule-edge[{extra}]'")
