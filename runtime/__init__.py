"""Everything from a recording to the report; no training framework. What is listed here is the API.

Each name is imported when it is first used, so that importing the package costs next to nothing and a
program that only writes a study loads no video decoder.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .lazy import lazy_names

if TYPE_CHECKING:
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
        Terminated,
        UsageError,
    )
    from .inference import (
        BACKENDS,
        Answer,
        Backend,
        EventParameters,
        InputSpec,
        Label,
        ModelSpec,
        OperatingPoint,
        default_model,
        open_model,
    )
    from .preprocessing import FieldOfView
    from .reader import Prediction, Reader, ReadOptions
    from .results import Journal, Run, open_run, prepare_folder, study_document, write_study
    from .streaming import Feed, Live, parse_feed, read_pipe
    from .study import Alternative, Event, FrameRecord, Ledger, MeasuredPrecision, Source, Study, Suggestion

    __version__: str

__all__ = [
    "BACKENDS",
    "Alternative",
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
    "MeasuredPrecision",
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
    "Suggestion",
    "Terminated",
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

_load, __dir__ = lazy_names(
    __name__,
    errors=(
        "AuditError BackendError CapsuleEdgeError GateError InputError Interrupted ModelError OutputError "
        "PackageError Terminated UsageError"
    ),
    inference=(
        "Answer BACKENDS Backend EventParameters InputSpec Label ModelSpec OperatingPoint default_model "
        "open_model"
    ),
    preprocessing="FieldOfView",
    reader="Prediction ReadOptions Reader",
    results="Journal Run open_run prepare_folder study_document write_study",
    streaming="Feed Live parse_feed read_pipe",
    study="Alternative Event FrameRecord Ledger MeasuredPrecision Source Study Suggestion",
)


def __getattr__(name: str) -> Any:
    if name != "__version__":
        return _load(name)
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("capsule-edge")
    except PackageNotFoundError:
        return "unknown"
