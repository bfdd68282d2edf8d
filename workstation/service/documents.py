"""Make the JSON documents of studies, jobs and results from their rows, and describe their form for OpenAPI."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import sqlalchemy as sa
from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints

from ..jobs import JobQueue
from ..readings import known_scale, list_readings
from ..store import BANNER, current_result, last_job, list_results

__all__ = [
    "Job",
    "Limits",
    "Line",
    "ModelList",
    "Study",
    "StudyList",
    "job_document",
    "result_document",
    "study_document",
]

_STATES = {
    "queued": "queued",
    "running": "reading",
    "done": "read",
    "failed": "failed",
    "cancelled": "cancelled",
}


def _check_text(text: str) -> str:
    if "\0" in text:
        raise ValueError("the text holds the character NUL")
    text.encode()  # a lone surrogate raises a ValueError too
    return text


Line = Annotated[str, StringConstraints(max_length=4000), AfterValidator(_check_text)]
"""Text of up to 4,000 characters that UTF-8 can carry, without NUL."""
Identity = Annotated[str, StringConstraints(pattern="^[0-9a-f]{32}$")]
State = Literal["queued", "reading", "read", "failed", "cancelled"]


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Fault(_Document):
    """An error in one line: a word for programs, a message and the next step."""

    code: str
    message: str
    hint: str


class Job(_Document):
    """The work that makes a result."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "id": "0c9d6f1f3f0c4d6b8a0d7b5f1c2e3a4b",
                    "study_id": "5d1c1c0a8a9b4f1e9d0e2f3a4b5c6d7e",
                    "model_sha256": "ab" * 32,
                    "options": {},
                    "state": "running",
                    "attempts": 1,
                    "frames_done": 1200,
                    "frames_total": 57600,
                    "error": None,
                    "created_at": "2026-11-30T10:00:00.000000Z",
                    "started_at": "2026-11-30T10:00:01.000000Z",
                    "finished_at": None,
                    "result_id": None,
                }
            ]
        },
    )

    id: str
    study_id: str
    model_sha256: str
    options: dict[str, Any]
    state: Literal["queued", "running", "done", "failed", "cancelled"]
    attempts: int
    frames_done: int
    frames_total: int | None
    error: Fault | None
    created_at: str
    started_at: str | None
    finished_at: str | None
    result_id: str | None


class Result(_Document):
    """One reading of the recording by one model."""

    id: str
    study_id: str
    model_sha256: str
    model_name: str
    model_version: str
    precision: str
    tool_version: str
    document_sha256: str
    created_at: str


class Recording(_Document):
    """The recording of a study, as far as it is known.

    ``capture_scale`` is the capture time in a second of container time; null where the capture rate is unknown.
    """

    name: str
    bytes: int
    sha256: str | None
    frames: int | None
    duration_s: float | None
    width: int | None
    height: int | None
    time_kind: Literal["capture", "playback"] | None
    frame_distance_s: float | None
    capture_fps: float | None
    capture_scale: float | None


class Study(_Document):
    """An examination with its recording."""

    id: str
    title: str
    origin: Literal["folder", "upload", "demo"]
    added_at: str
    recording: Recording
    examination: dict[str, str]
    examination_version: int
    state: State
    job: Job | None
    results: list[Result]
    current_result: str | None
    readings: list[dict[str, Any]]
    error: Fault | None


class StudyList(_Document):
    """Some studies, and the number of all that match."""

    studies: list[Study]
    total: int


class Limits(_Document):
    """Limits of a result's suggestions, in sentences.

    ``not_new`` says that the model was trained or fitted on this recording. ``blind_spots`` names findings that the
    model hardly sees, or of which nobody measured how well it sees them; null where the model's file is gone.
    """

    result_id: str
    not_new: list[str]
    blind_spots: list[str] | None


class Label(_Document):
    """A label of a model."""

    key: str
    name: str
    role: str


class Model(_Document):
    """A model of the workstation."""

    sha256: str
    name: str
    version: str
    precision: str
    labels: list[Label]
    in_use: bool
    shipped: str | None
    added_at: str | None


class ModelChoice(_Document):
    """A change of the model in use."""

    at: str
    before: str
    after: str


class ModelList(_Document):
    """All models, and the choices made so far, the last one at the end."""

    models: list[Model]
    history: list[ModelChoice]


def job_document(row: sa.Row[Any], queue: JobQueue) -> dict[str, Any]:
    """Return a job as JSON values, with the progress of a running one."""
    document = dict(row._mapping)
    if row.state == "running" and (progress := queue.progress(row.id)):
        document["frames_done"] = progress.frames_done
        document["frames_total"] = progress.frames_total
    return document


def result_document(row: sa.Row[Any]) -> dict[str, Any]:
    """Return a result as JSON values."""
    return {name: getattr(row, name) for name in Result.model_fields}


def study_document(connection: sa.Connection, row: sa.Row[Any], queue: JobQueue) -> dict[str, Any]:
    """Return a study as JSON values.

    Args:
        connection: to read its jobs, results and readings.
        row: of the study.
        queue: knows the progress of its job.
    """
    job = last_job(connection, row.id)
    current = current_result(connection, row.id)
    return {
        "id": row.id,
        "title": row.title,
        "origin": row.origin,
        "added_at": row.added_at,
        "recording": _recording(row),
        "examination": {name: str(row.examination.get(name, "")) for name in BANNER},
        "examination_version": row.examination_version,
        "state": "queued" if job is None else _STATES[job.state],
        "job": None if job is None else job_document(job, queue),
        "results": [result_document(each) for each in list_results(connection, row.id)],
        "current_result": None if current is None else current.id,
        "readings": list_readings(connection, row.id),
        "error": row.error,
    }


def _recording(row: sa.Row[Any]) -> dict[str, Any]:
    facts, preview = row.recording or {}, row.preview or {}
    distance_s = facts.get("frame_distance_s", preview.get("frame_distance_s"))
    # Without a distance, the recording was not opened yet.
    scale = known_scale(facts.get("time_kind"), distance_s, row.capture_fps) if distance_s else None
    return {
        "name": row.title,
        "bytes": row.bytes,
        "sha256": row.sha256,
        "frames": row.frames,
        "duration_s": facts.get("duration_s", preview.get("duration_s")),
        "width": facts.get("width"),
        "height": facts.get("height"),
        "time_kind": facts.get("time_kind"),
        "frame_distance_s": distance_s,
        "capture_fps": row.capture_fps,
        "capture_scale": scale,
    }
