"""Every error that capsule-edge raises on purpose.

    CapsuleEdgeError            exit 1
    ├── UsageError              exit 2   an option or argument that cannot be
    ├── InputError              exit 1   a recording, image or data set that cannot be read
    ├── ModelError              exit 1   a model file that breaks the contract
    ├── BackendError            exit 1   an inference engine that is not there or refuses the model
    ├── PackageError            exit 1   a Python package that an option or command needs and that is not installed
    ├── OutputError             exit 1   a place that cannot be written
    ├── GateError               exit 4   a certificate's gate failed
    ├── AuditError              exit 5   a data set on which evaluation would mislead
    └── Interrupted             exit 130 stopped by the user

A message says what was received and what is allowed; ``hint`` says what to do next. The command line prints both
on one line.
"""

from __future__ import annotations

__all__ = [
    "AuditError",
    "BackendError",
    "CapsuleEdgeError",
    "GateError",
    "InputError",
    "Interrupted",
    "ModelError",
    "OutputError",
    "PackageError",
    "UsageError",
]


class CapsuleEdgeError(Exception):
    """Base of the tree. ``code`` is a stable word for programs, ``hint`` the next step for people."""

    code = "error"
    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class UsageError(CapsuleEdgeError):
    code = "usage"
    exit_code = 2


class InputError(CapsuleEdgeError):
    code = "input"


class ModelError(CapsuleEdgeError):
    code = "model"


class BackendError(CapsuleEdgeError):
    code = "backend"


class PackageError(CapsuleEdgeError):
    code = "package"


class OutputError(CapsuleEdgeError):
    code = "output"


class GateError(CapsuleEdgeError):
    code = "gate"
    exit_code = 4


class AuditError(CapsuleEdgeError):
    code = "audit"
    exit_code = 5


class Interrupted(CapsuleEdgeError):  # noqa: N818 - not a fault: the user's own wish
    code = "interrupted"
    exit_code = 130
