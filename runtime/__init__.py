"""Everything from a recording to the report; no training framework. What is listed here is the API.

Each name is imported when it is first used, so that importing the package costs next to nothing and a
program that only writes a study loads no video decoder.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .backends import BACKENDS, Answer, Backend, open_model
    from .errors import (
        AuditError,
        BackendError,
        CapsuleEdgeError,
        GateError,
        InputError,
        Interrupted,
        ModelError,
        OutputError,
        UsageError,
    )
    from .outputs import prepare_folder, study_document, write_study
    from .preprocess import FieldOfView
    from .reader import Prediction, Reader, default_model
    from .spec import EventParameters, InputSpec, Label, ModelSpec, OperatingPoint
    from .study import Event, FrameRecord, Ledger, Source, Study

    __version__: str

__all__ = [
    "BACKENDS",
    "Answer",
    "AuditError",
    "Backend",
    "BackendError",
    "CapsuleEdgeError",
    "Event",
    "EventParameters",
    "FieldOfView",
    "FrameRecord",
    "GateError",
    "InputError",
    "InputSpec",
    "Interrupted",
    "Label",
    "Ledger",
    "ModelError",
    "ModelSpec",
    "OperatingPoint",
    "OutputError",
    "Prediction",
    "Reader",
    "Source",
    "Study",
    "UsageError",
    "__version__",
    "default_model",
    "open_model",
    "prepare_folder",
    "study_document",
    "write_study",
]

_HOMES = {
    "backends": ("BACKENDS", "Answer", "Backend", "open_model"),
    "errors": (
        "AuditError",
        "BackendError",
        "CapsuleEdgeError",
        "GateError",
        "InputError",
        "Interrupted",
        "ModelError",
        "OutputError",
        "UsageError",
    ),
    "outputs": ("prepare_folder", "study_document", "write_study"),
    "preprocess": ("FieldOfView",),
    "reader": ("Prediction", "Reader", "default_model"),
    "spec": ("EventParameters", "InputSpec", "Label", "ModelSpec", "OperatingPoint"),
    "study": ("Event", "FrameRecord", "Ledger", "Source", "Study"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            value: Any = version("capsule-edge")
        except PackageNotFoundError:
            value = "unknown"
    elif name in _HOME_OF:
        value = getattr(import_module(f".{_HOME_OF[name]}", __name__), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
