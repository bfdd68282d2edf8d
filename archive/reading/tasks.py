"""The tasks of workers and their results."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from capsule_edge.runtime.pipeline import Division, Part

from ..sources import RecordingState

__all__ = [
    "Divided",
    "Done",
    "Failed",
    "Identified",
    "IdentifyTask",
    "JoinTask",
    "OpenTask",
    "PartDone",
    "PartTask",
    "Ready",
    "Task",
]


@dataclass(frozen=True)
class IdentifyTask:
    """Tell the key of a recording's result, without reading it.

    Attributes:
        location: of the recording.
        address: the address that opens it, if that holds a token; else empty.
    """

    location: str
    address: str = field(default="", repr=False)


@dataclass(frozen=True)
class OpenTask:
    """Open a recording: read a short one at once, divide a long one.

    Attributes:
        location: of the recording.
        divide: whether other workers are free to share a long one.
        address: the address that opens it, if that holds a token; else empty.
    """

    location: str
    divide: bool = True
    address: str = field(default="", repr=False)


@dataclass(frozen=True)
class Ready:
    """A recording that is open: what its parts need.

    Attributes:
        location: of the recording.
        path: where it is read: the location, or a copy of a remote one.
        state: of the recording when it was opened.
        key: of its result.
        division: into parts.
    """

    location: str
    path: str
    state: RecordingState
    key: str
    division: Division


@dataclass(frozen=True)
class PartTask:
    """Read one part of a recording."""

    ready: Ready
    part: Part


@dataclass(frozen=True)
class JoinTask:
    """Join the parts of a recording, in order."""

    ready: Ready
    parts: tuple[Part, ...]
    seconds: float


Task = IdentifyTask | OpenTask | PartTask | JoinTask


@dataclass(frozen=True)
class Identified:
    """A recording whose result will have this key."""

    key: str


@dataclass(frozen=True)
class Done:
    """A recording with a result.

    Attributes:
        key: of the result.
        state: of the recording when it was read.
        sha256: of the recording.
        ledger: of the study, by name.
        suggestions: number of them.
        seconds: core time of the reading in seconds; 0 if the result was there already.
    """

    key: str
    state: RecordingState
    sha256: str
    ledger: dict[str, Any]
    suggestions: int
    seconds: float


@dataclass(frozen=True)
class Divided:
    """A long recording that is to be read in parts."""

    ready: Ready
    seconds: float


@dataclass(frozen=True)
class PartDone:
    """A part whose answers are stored.

    Attributes:
        rest: what is to be read in order, if the part ended at a damaged GOP; else None.
        seconds: core time in seconds.
    """

    rest: Part | None
    seconds: float


@dataclass(frozen=True)
class Failed:
    """A task that ended in an error.

    Attributes:
        cause: a word: the code of the error, ``changed``, ``unreachable``, ``memory``, ``internal``; or ``node`` if
            this machine has another tool, other libraries or another model.
        message: the error in a sentence.
    """

    cause: str
    message: str
