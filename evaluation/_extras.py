"""What the ``[eval]`` extra brings is imported where it is used, and its absence said in one line."""

from __future__ import annotations

from importlib.util import find_spec

from capsule_edge.runtime.errors import CapsuleEdgeError

__all__ = ["require"]


def require(*modules: str) -> None:
    """Raise ``CapsuleEdgeError`` when one of ``modules`` of the ``[eval]`` extra is not installed."""
    for module in modules:
        if find_spec(module) is None:
            raise CapsuleEdgeError(f"{module} is not installed", hint="pip install 'capsule-edge[eval]'")
