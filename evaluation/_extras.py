"""Check that the packages of an optional extra are installed before a function imports them."""

from __future__ import annotations

from importlib.util import find_spec

from capsule_edge.runtime.errors import PackageError

__all__ = ["TRAINING", "require"]

# Check these before importing any of them: without TensorFlow some print to stdout.
TRAINING = ("tensorflow", "tf_keras", "tensorflow_model_optimization")


def require(*modules: str, extra: str = "eval", what: str = "") -> None:
    """Check that packages are installed.

    Args:
        modules: Names of the packages to look for.
        extra: The extra that installs them, for the hint.
        what: The feature that needs them, for the message.

    Raises:
        PackageError: One of the packages is not installed.
    """
    for module in modules:
        if find_spec(module) is None:
            message = (
                f"{what} needs {module}, which is not installed" if what else f"{module} is not installed"
            )
            raise PackageError(message, hint=f"pip install 'capsule-edge[{extra}]'")
