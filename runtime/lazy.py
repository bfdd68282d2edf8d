"""Load the names of a package when they are first used, so that importing the package is fast."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

__all__ = ["lazy_names"]


def lazy_names(package: str, **names_of: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return ``__getattr__`` and ``__dir__`` for the ``__init__.py`` of a package.

    Args:
        package: the package's ``__name__``.
        names_of: for each module of the package, the names that the package offers from it, separated by spaces.

    Returns:
        A function that loads a name and raises ``AttributeError`` for an unknown one, and a function that lists
        all names.

    Example:
        ``__getattr__, __dir__ = lazy_names(__name__, decoder="decode fetch")``
    """
    module_of = {name: module for module, names in names_of.items() for name in names.split()}

    def load(name: str) -> Any:
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(f"{package}.{module_of[name]}"), name)
        setattr(sys.modules[package], name, value)
        return value

    def list_names() -> list[str]:
        found = vars(sys.modules[package])
        return sorted({*found, *module_of, *found.get("__all__", ())})

    return load, list_names
