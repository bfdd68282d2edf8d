"""Keep the rows of results: one for each time that a model has read the recording of a study."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from .tables import later_than_all, results

__all__ = ["add_result", "current_result", "find_result", "list_results", "models_in_use"]


def add_result(connection: sa.Connection, **values: Any) -> None:
    """Add a result. Its ``id`` is that of its job; a result that exists already stays as it is.

    Args:
        connection: of ``Database.writing``.
        values: the columns of ``results`` but ``created_at``.
    """
    if find_result(connection, values["id"]) is None:
        created_at = later_than_all(connection, results.c.created_at)
        connection.execute(sa.insert(results).values(created_at=created_at, **values))


def find_result(connection: sa.Connection, result_id: str) -> sa.Row[Any] | None:
    """Return the row of a result, None if there is none."""
    return connection.execute(sa.select(results).where(results.c.id == result_id)).first()


def list_results(connection: sa.Connection, study_id: str) -> Sequence[sa.Row[Any]]:
    """Return the results of a study, the oldest first."""
    query = sa.select(results).where(results.c.study_id == study_id)
    return connection.execute(query.order_by(results.c.created_at, results.c.id)).all()


def current_result(
    connection: sa.Connection, study_id: str, result_id: str | None = None
) -> sa.Row[Any] | None:
    """Return the newest result of a study, or the one that is named; None if the study has no such result."""
    found = [row for row in list_results(connection, study_id) if result_id in (None, row.id)]
    return found[-1] if found else None


def models_in_use(connection: sa.Connection) -> set[str]:
    """Return the SHA-256 of every model that made a result."""
    return set(connection.execute(sa.select(results.c.model_sha256).distinct()).scalars())
