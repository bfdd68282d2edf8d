"""Keep the rows of jobs. A job makes one result of one study, and the result has the id of its job."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from .tables import jobs, later_than_all, new_id, utc_now

__all__ = [
    "OPEN_STATES",
    "add_job",
    "change_job",
    "count_jobs",
    "find_job",
    "last_job",
    "list_jobs",
    "requeue_running",
    "take_next_job",
]

OPEN_STATES = ("queued", "running")


def add_job(
    connection: sa.Connection, *, study_id: str, model_sha256: str, options: dict[str, Any] | None = None
) -> str:
    """Add a queued job and return its id.

    Args:
        connection: of ``Database.writing``.
        study_id: the study to read.
        model_sha256: the model to read it with.
        options: options of the reading, JSON values by name.
    """
    job_id = new_id()
    connection.execute(
        sa.insert(jobs).values(
            id=job_id,
            study_id=study_id,
            model_sha256=model_sha256,
            options=options or {},
            state="queued",
            attempts=0,
            frames_done=0,
            created_at=later_than_all(connection, jobs.c.created_at),
        )
    )
    return job_id


def find_job(connection: sa.Connection, job_id: str) -> sa.Row[Any] | None:
    """Return the row of a job, None if there is none."""
    return connection.execute(sa.select(jobs).where(jobs.c.id == job_id)).first()


def last_job(connection: sa.Connection, study_id: str) -> sa.Row[Any] | None:
    """Return the newest job of a study, None if it has none."""
    query = sa.select(jobs).where(jobs.c.study_id == study_id)
    return connection.execute(query.order_by(jobs.c.created_at.desc(), jobs.c.id).limit(1)).first()


def list_jobs(
    connection: sa.Connection, *, study_id: str | None = None, limit: int = 200
) -> Sequence[sa.Row[Any]]:
    """Return jobs, the newest first.

    Args:
        study_id: of one study; None for all.
        limit: number of jobs at most.
    """
    query = sa.select(jobs).order_by(jobs.c.created_at.desc(), jobs.c.id).limit(limit)
    if study_id is not None:
        query = query.where(jobs.c.study_id == study_id)
    return connection.execute(query).all()


def count_jobs(connection: sa.Connection) -> dict[str, int]:
    """Return the number of jobs by state."""
    query = sa.select(jobs.c.state, sa.func.count()).group_by(jobs.c.state)
    return {row.state: row[1] for row in connection.execute(query)}


def take_next_job(connection: sa.Connection) -> sa.Row[Any] | None:
    """Mark the oldest queued job as running, count the attempt, and return it; None if none is queued."""
    query = sa.select(jobs.c.id).where(jobs.c.state == "queued")
    job_id = connection.execute(query.order_by(jobs.c.created_at, jobs.c.id).limit(1)).scalar()
    if job_id is None:
        return None
    change_job(
        connection, job_id, state="running", started_at=utc_now(), attempts=jobs.c.attempts + 1, error=None
    )
    return find_job(connection, job_id)


def change_job(connection: sa.Connection, job_id: str, **values: Any) -> None:
    """Change columns of a job."""
    connection.execute(sa.update(jobs).where(jobs.c.id == job_id).values(**values))


def requeue_running(connection: sa.Connection) -> int:
    """Queue the jobs again that ran when the service ended, and return their number.

    The attempt does not count: the service ended, the recording may be sound.
    """
    return connection.execute(
        sa.update(jobs)
        .where(jobs.c.state == "running")
        .values(state="queued", started_at=None, attempts=jobs.c.attempts - 1)
    ).rowcount
