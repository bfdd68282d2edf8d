"""Keep the rows of studies: add, find, list, change and delete. All functions work on the caller's transaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from .job_rows import OPEN_STATES
from .tables import jobs, log, new_id, readings, results, studies, utc_now

__all__ = [
    "BANNER",
    "add_study",
    "change_study",
    "delete_study",
    "find_study",
    "list_studies",
    "list_unseen_studies",
    "study_at",
]

# The fields of the examination, in the order of the banner.
BANNER = (
    "patient_name",
    "patient_id",
    "birth_date",
    "accession_number",
    "procedure_date",
    "indication",
    "preparation",
)


def add_study(
    connection: sa.Connection,
    *,
    title: str,
    path: str,
    origin: str,
    size: int,
    capture_fps: float | None = None,
    study_id: str | None = None,
    recording: dict[str, Any] | None = None,
) -> str:
    """Add a study and return its id.

    Args:
        connection: of ``Database.writing``.
        title: shown in the list.
        path: of the recording; relative to the home folder for an upload or the demo.
        origin: ``folder``, ``upload`` or ``demo``.
        size: of the recording in bytes; 0 where it is not known yet.
        capture_fps: frames per second at which the capsule recorded; None where unknown.
        study_id: the id, where the recording already lies in a folder of that name.
        recording: facts about the recording that are known already.
    """
    chosen = study_id or new_id()
    connection.execute(
        sa.insert(studies).values(
            id=chosen,
            title=title,
            path=path,
            origin=origin,
            added_at=utc_now(),
            bytes=size,
            capture_fps=capture_fps,
            recording=recording,
            examination=dict.fromkeys(BANNER, ""),
            examination_version=0,
        )
    )
    return chosen


def find_study(connection: sa.Connection, study_id: str) -> sa.Row[Any] | None:
    """Return the row of a study, None if there is none."""
    return connection.execute(sa.select(studies).where(studies.c.id == study_id)).first()


def study_at(connection: sa.Connection, *, path: str) -> str | None:
    """Return the id of the study whose recording lies at ``path``, None if there is none."""
    found: str | None = connection.execute(
        sa.select(studies.c.id).where(studies.c.path == path).limit(1)
    ).scalar()
    return found


def list_studies(
    connection: sa.Connection, *, search: str = "", limit: int = 100, offset: int = 0
) -> tuple[Sequence[sa.Row[Any]], int]:
    """Return some studies, the newest first, and the number of all that match.

    Args:
        search: words that the title and the examination must all contain, in any case.
        limit: number of studies at most.
        offset: number of studies to pass over.
    """
    order = (studies.c.added_at.desc(), studies.c.id)
    words = search.casefold().split()
    if not words:
        total = connection.execute(sa.select(sa.func.count()).select_from(studies)).scalar_one()
        rows = connection.execute(sa.select(studies).order_by(*order).limit(limit).offset(offset))
        return rows.all(), total
    # Databases fold the case of ASCII letters only, and keep the examination as escaped JSON: compare here.
    found = []
    for row in connection.execute(
        sa.select(studies.c.id, studies.c.title, studies.c.examination).order_by(*order)
    ):
        text = " ".join([row.title, *map(str, row.examination.values())]).casefold()
        if all(word in text for word in words):
            found.append(row.id)
    page = found[offset : offset + limit]
    rows = connection.execute(sa.select(studies).where(studies.c.id.in_(page)).order_by(*order))
    return rows.all(), len(found)


def list_unseen_studies(connection: sa.Connection) -> Sequence[sa.Row[Any]]:
    """Return the studies that wait to be read and have no preview, the oldest first."""
    waiting = sa.exists().where(jobs.c.study_id == studies.c.id, jobs.c.state.in_(OPEN_STATES))
    query = sa.select(studies).where(studies.c.preview.is_(sa.null()), studies.c.sha256.is_(None), waiting)
    return connection.execute(query.order_by(studies.c.added_at, studies.c.id)).all()


def change_study(connection: sa.Connection, study_id: str, **values: Any) -> None:
    """Change columns of a study."""
    connection.execute(sa.update(studies).where(studies.c.id == study_id).values(**values))


def delete_study(connection: sa.Connection, study_id: str) -> bool:
    """Delete a study with its jobs, results, readings and log. Return whether there was one."""
    # Readings refer to results, which go with the study as well: remove the readings first.
    for table, column in (
        (readings, readings.c.study_id),
        (jobs, jobs.c.study_id),
        (results, results.c.study_id),
        (log, log.c.chain),
    ):
        connection.execute(sa.delete(table).where(column == study_id))
    return connection.execute(sa.delete(studies).where(studies.c.id == study_id)).rowcount == 1
