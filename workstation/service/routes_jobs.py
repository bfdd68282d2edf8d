"""Routes of jobs: list, read a study again, cancel, retry."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Query
from pydantic import BaseModel, ConfigDict, Field

from ..store import OPEN_STATES, ConflictError, NotFoundError, add_job, find_job, last_job, list_jobs
from .documents import Job, job_document
from .workstation import Workstation, existing_study, workstation

__all__ = ["router"]

router = APIRouter(prefix="/v1", tags=["jobs"])
Station = Annotated[Workstation, Depends(workstation)]


class NewJob(BaseModel):
    """A study to be read again."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"model": "small"}, {}]})

    model: (
        Annotated[str, Field(max_length=64, description="SHA-256 or name; the one in use if left out")] | None
    ) = None


class JobList(BaseModel):
    """Jobs, the newest first."""

    jobs: list[Job]


@router.get("/jobs")
def get_jobs(
    station: Station, study: str | None = None, limit: Annotated[int, Query(ge=1, le=1000)] = 200
) -> JobList:
    """Return jobs, the newest first."""
    with station.database.reading() as connection:
        rows = list_jobs(connection, study_id=study, limit=limit)
    return JobList.model_validate({"jobs": [job_document(row, station.queue) for row in rows]})


@router.get("/jobs/{job_id}")
def get_job(station: Station, job_id: str) -> Job:
    """Return a job."""
    return _job(station, job_id)


@router.post("/studies/{study_id}/jobs", status_code=201)
def post_job(
    station: Station,
    study_id: str,
    new: Annotated[NewJob | None, Body(examples=[{"model": "small"}, {}])] = None,
) -> Job:
    """Read a study again, with the model in use or another one. Earlier results and readings stay."""
    name = new.model if new else None
    model = station.models.find(name) if name else station.models.in_use
    with station.database.writing() as connection:
        study = existing_study(connection, study_id)
        station.queue.check_wanted(study_id)
        last = last_job(connection, study_id)
        if last is not None and last.state in OPEN_STATES:
            raise ConflictError(f"the study has a {last.state} job already", hint="wait for it, or cancel it")
        options: dict[str, Any] = dict(last.options) if last is not None else {}
        if study.capture_fps is not None:
            options["capture_fps"] = study.capture_fps
        job_id = add_job(connection, study_id=study_id, model_sha256=model.sha256, options=options)
    station.queue.wake()
    station.tell("study", study_id, job_id)
    return _job(station, job_id)


@router.post("/jobs/{job_id}/cancel")
def post_cancel(station: Station, job_id: str) -> Job:
    """Cancel a queued or running job. The frames that were read are kept for a later try."""
    station.queue.cancel(job_id)
    return _job(station, job_id)


@router.post("/jobs/{job_id}/retry")
def post_retry(station: Station, job_id: str) -> Job:
    """Queue a job again that failed or was cancelled. It goes on from the frames that were read."""
    station.queue.retry(job_id)
    return _job(station, job_id)


def _job(station: Workstation, job_id: str) -> Job:
    with station.database.reading() as connection:
        row = find_job(connection, job_id)
    if row is None:
        raise NotFoundError("there is no such job", hint="it may have been deleted with its study")
    return Job.model_validate(job_document(row, station.queue))
