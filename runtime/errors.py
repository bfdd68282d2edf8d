"""The errors that capsule-edge raises on purpose.

    CapsuleEdgeError            exit 1
    ├── UsageError              exit 2   an option or argument has a value that is not allowed
    ├── InputError              exit 1   a recording, image or data set cannot be read
    ├── ModelError              exit 1   a model file cannot be used
    ├── BackendError            exit 1   an inference engine is not installed or refuses the model
    ├── PackageError            exit 1   a Python package that an option or command needs is not installed
    ├── OutputError             exit 1   a file or folder cannot be written
    ├── GateError               exit 4   a gate of a certificate failed
    ├── AuditError              exit 5   evaluation on a data set would be misleading
    └── Interrupted             exit 130 the user stopped the program
        └── Terminated          exit 143 the system asked the program to end (SIGTERM)

A message says what was received and what is allowed. Its ``hint`` says what to do next. The command line prints
both on one line.
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
    "Terminated",
    "UsageError",
]


class CapsuleEdgeError(Exception):
    """Base class of all errors that capsule-edge raises on purpose.

    Attributes:
        message: what was received and what is allowed.
        hint: what to do next, or an empty string.
        code: a word for programs. It does not change between versions.
        exit_code: exit code of the command line.

    Example:
        ``raise InputError("exam.mp4 is empty (0 bytes)", hint="copy it again")``
    """

    code = "error"
    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class UsageError(CapsuleEdgeError):
    """An option or argument has a value that is not allowed."""

    code = "usage"
    exit_code = 2


class InputError(CapsuleEdgeError):
    """A recording, image or data set cannot be read."""

    code = "input"


class ModelError(CapsuleEdgeError):
    """A model file cannot be used: it is missing, damaged, or lacks a valid specification."""

    code = "model"


class BackendError(CapsuleEdgeError):
    """An inference engine is not known, not installed, or refuses the model."""

    code = "backend"


class PackageError(CapsuleEdgeError):
    """A Python package that an option or command needs is not installed."""

    code = "package"


class OutputError(CapsuleEdgeError):
    """A file or folder cannot be written, or holds results that may not be replaced."""

    code = "output"


class GateError(CapsuleEdgeError):
    """A gate of a certificate failed."""

    code = "gate"
    exit_code = 4


class AuditError(CapsuleEdgeError):
    """Evaluation on a data set would be misleading."""

    code = "audit"
    exit_code = 5


class Interrupted(CapsuleEdgeError):  # noqa: N818 - not an error: the user asked for it
    """The user stopped the program."""

    code = "interrupted"
    exit_code = 130


class Terminated(Interrupted):
    """The system asked the program to end (SIGTERM). ``code`` is that of ``Interrupted``."""

    exit_code = 143
