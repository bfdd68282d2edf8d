"""The row of a recording in the manifest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["READ_STATES", "Row", "State"]

State = Literal["read", "incomplete", "failed", "set_aside", "gone"]
READ_STATES: tuple[State, ...] = ("read", "incomplete")
"""The states of a recording that has a result."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """The state of one recording, and its result if it was read.

    Attributes:
        recording: absolute path or address of the recording; there is one row for each.
        site, capsule_type, patient, date: as the list of recordings has them; None where it says nothing.
        state: ``read`` whole; ``incomplete``: read, but frames are corrupt or missing or the file is cut; ``failed``:
            not read, to be tried again by the next run; ``set_aside``: given up after the stated number of tries;
            ``gone``: never read, and its source no longer names it. Such a row ends an earlier one and is not shown.
        cause: a word for why the recording is not read whole; empty for one that is.
        message: the same in a sentence.
        tries: number of tries that ended without a result.
        bytes: size of the recording; None if it is not known.
        modified_ns: time of its last change, nanoseconds since 1970; None if it is not known.
        sha256: of the recording; None if it was not read.
        model_sha256: of the model file.
        identity: hash of all that the answers depend on beside the recording: model, engine, options, versions.
        version: of capsule-edge.
        options: those of the reading, as JSON.
        key: names the result: hash of recording, its name and ``identity``; None without a result.
        frames, classified, duplicate, corrupt, missing: from the ledger; None without a result.
        truncated: whether the file is cut; None where that is not known.
        suggestions: number of them; None without a result.
        seconds: core time of the reading in seconds, all its parts together.
        recorded_at: UTC, ISO 8601.
        listed_in: the folder, list, pattern or address that named the recording; None if that is not known.
    """

    recording: str
    site: str | None = None
    capsule_type: str | None = None
    patient: str | None = None
    date: str | None = None
    state: State
    cause: str = ""
    message: str = ""
    tries: int = 0
    bytes: int | None = None
    modified_ns: int | None = None
    sha256: str | None = None
    model_sha256: str
    identity: str
    version: str
    options: str
    key: str | None = None
    frames: int | None = None
    classified: int | None = None
    duplicate: int | None = None
    corrupt: int | None = None
    missing: int | None = None
    truncated: bool | None = None
    suggestions: int | None = None
    seconds: float | None = None
    recorded_at: str
    listed_in: str | None = None
