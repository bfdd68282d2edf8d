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
        PackageError,
        UsageError,
    )
    from .feeds import Feed, parse_feed
    from .live import Live
    from .outputs import prepare_folder, study_document, write_study
    from .pipes import read_pipe
    from .preprocess import FieldOfView
    from .reader import Prediction, Reader, ReadOptions
    from .resume import Journal
    from .runs import Run, open_run
    from .shipped import default_model
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
    "Feed",
    "FieldOfView",
    "FrameRecord",
    "GateError",
    "InputError",
    "InputSpec",
    "Interrupted",
    "Journal",
    "Label",
    "Ledger",
    "Live",
    "ModelError",
    "ModelSpec",
    "OperatingPoint",
    "OutputError",
    "PackageError",
    "Prediction",
    "ReadOptions",
    "Reader",
    "Run",
    "Source",
    "Study",
    "UsageError",
    "__version__",
    "default_model",
    "open_model",
    "open_run",
    "parse_feed",
    "prepare_folder",
    "read_pipe",
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
        "PackageError",
        "UsageError",
    ),
    "feeds": ("Feed", "parse_feed"),
    "live": ("Live",),
    "outputs": ("prepare_folder", "study_document", "write_study"),
    "pipes": ("read_pipe",),
    "preprocess": ("FieldOfView",),
    "reader": ("Prediction", "ReadOptions", "Reader"),
    "shipped": ("default_model",),
    "resume": ("Journal",),
    "runs": ("Run", "open_run"),
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
