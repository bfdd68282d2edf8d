"""Change the examination of a study: patient, dates, indication and preparation. Every change is in the log."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from typing import Any

import sqlalchemy as sa

from ..store import BANNER, studies
from .entries import check_date, check_text
from .log import append_line
from .projection import EXAMINATION_TARGET, project
from .reading_errors import ReadingConflictError, ReadingNotFoundError, ReadingValueError
from .table_rows import TableRows

__all__ = ["change_examination"]


def change_examination(
    connection: sa.Connection, study_id: str, *, reader: str, version: int, fields: Mapping[str, str]
) -> dict[str, Any]:
    """Change fields of the examination. Return ``examination`` and ``examination_version`` as they are now.

    Args:
        connection: of ``Database.writing``.
        study_id: of the study.
        reader: name of the person who changes it, as it was typed in.
        version: of the examination that the reader saw; 0 before the first change.
        fields: the new texts by name; dates as ``YYYY-MM-DD`` or empty. A field that is left out is kept.

    Raises:
        ReadingNotFoundError: there is no such study.
        ReadingConflictError: another window has changed it meanwhile.
        ReadingValueError: a field is unknown, its text is not allowed, or the birth date lies in the future.
    """
    reader = check_text(reader, name="the reader's name", empty=False)
    new = {name: _check(name, text) for name, text in fields.items()}
    row = connection.execute(sa.select(studies).where(studies.c.id == study_id)).first()
    if row is None:
        raise ReadingNotFoundError("there is no study of this id", hint="list the studies")
    if version != row.examination_version:
        raise ReadingConflictError(
            "the examination was changed meanwhile",
            hint="look at it as it is now, and change it again",
            current={"examination": row.examination, "examination_version": row.examination_version},
        )
    before = {name: row.examination.get(name, "") for name in new}
    after = {name: text for name, text in new.items() if text != before[name]}
    if not after:
        return {"examination": row.examination, "examination_version": row.examination_version}
    line = append_line(
        connection,
        chain=study_id,
        reader=reader,
        target=EXAMINATION_TARGET,
        action="examine",
        before={name: before[name] for name in after},
        after=after,
        study_sha256=row.sha256 or "",
    )
    project(TableRows(connection), line)
    return {"examination": {**row.examination, **after}, "examination_version": line.sequence}


def _check(name: str, text: object) -> str:
    if name not in BANNER:
        raise ReadingValueError(f"the field is {name[:40]!r}, allowed is one of {', '.join(BANNER)}")
    shown = name.replace("_", " ")
    if name == "birth_date":
        # A day more: the date of the place may be ahead of UTC.
        return check_date(text, name=shown, latest=str(date.today() + timedelta(days=1)))
    return check_date(text, name=shown) if name.endswith("_date") else check_text(text, name=shown)
