"""The errors of the database, each with the way out."""

from __future__ import annotations

from capsule_edge.runtime.errors import CapsuleEdgeError

__all__ = [
    "ConflictError",
    "NotFoundError",
    "StoreBusyError",
    "StoreDamagedError",
    "StoreError",
    "StoreFullError",
]


class NotFoundError(CapsuleEdgeError):
    """There is no such study, job, result or other entry."""

    code = "not_found"


class ConflictError(CapsuleEdgeError):
    """The state of an entry does not allow the action, or it was changed by somebody else meanwhile."""

    code = "conflict"


class StoreError(CapsuleEdgeError):
    """The database cannot be opened, read or written."""

    code = "store"


class StoreBusyError(StoreError):
    """Another process holds the database."""

    code = "store_busy"


class StoreFullError(StoreError):
    """The disk is full. What was acknowledged before is kept."""

    code = "store_full"


class StoreDamagedError(StoreError):
    """The database file is damaged, or of a newer version of this software."""

    code = "store_damaged"
