"""Import the packages of the extra ``[archive]``, or say in one line how to install them."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from capsule_edge.runtime.errors import PackageError

__all__ = ["load_package"]


def load_package(name: str, *, needed_for: str, install: str = "capsule-edge[archive]") -> Any:
    """Return a module of an optional package.

    Args:
        name: full name of the module, such as ``pyarrow.parquet``.
        needed_for: the command or option that needs it, for the message.
        install: the requirement that brings it.

    Raises:
        PackageError: the package is not installed.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise PackageError(
            f"{needed_for} needs the package {name.split('.')[0]}, which cannot be imported: {error}",
            hint=f"pip install '{install}'",
        ) from error
