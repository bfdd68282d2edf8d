"""Record actions: append the line of an action and project it, in the caller's transaction. Find readings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import sqlalchemy as sa

from ..store import readings, results, studies
from .entries import check_text
from .log import LogLine, append_line
from .projection import project
from .reading_errors import ReadingConflictError, ReadingNotFoundError
from .table_rows import TableRows

__all__ = ["Recorder", "find_recording_sha256"]


@dataclass(frozen=True)
class Recorder:
    """One reading within a transaction.

    Attributes:
        connection: of ``Database.writing``.
        reading: its row.
        study_sha256: of the recording; empty until it is known.
        model_sha256: of the model whose suggestions are shown.
        reader: name of the person who acts, who need not be the one that opened the reading.
    """

    connection: sa.Connection
    reading: dict[str, Any]
    study_sha256: str
    model_sha256: str
    reader: str

    @classmethod
    def of(
        cls,
        connection: sa.Connection,
        reading_id: str,
        *,
        reader: str | None = None,
        for_changes: bool = True,
    ) -> Self:
        """Return the reading of this id.

        Args:
            connection: of ``Database.writing``.
            reading_id: of the reading.
            reader: name of the person who acts, as it was typed in; None for the one who opened the reading.
            for_changes: refuse a reading that is finished.

        Raises:
            ReadingNotFoundError: there is none.
            ReadingConflictError: it is finished.
            ReadingValueError: the name is not allowed.
        """
        query = (
            sa.select(readings, studies.c.sha256.label("study_sha256"), results.c.model_sha256)
            .join(studies, studies.c.id == readings.c.study_id)
            .join(results, results.c.id == readings.c.result_id)
            .where(readings.c.id == reading_id)
        )
        found = connection.execute(query).mappings().first()
        if found is None:
            raise ReadingNotFoundError(
                "there is no reading of this id", hint="list the readings of the study"
            )
        row = dict(found)
        study_sha256, model_sha256 = row.pop("study_sha256") or "", row.pop("model_sha256")
        if for_changes and row["state"] == "finished":
            raise ReadingConflictError("the reading is finished", hint="reopen it to change it")
        name = row["reader"] if reader is None else check_text(reader, name="the reader's name", empty=False)
        return cls(connection, row, study_sha256, model_sha256, name)

    @property
    def id(self) -> str:
        """Return the id of the reading."""
        return str(self.reading["id"])

    @property
    def hides_suggestions(self) -> bool:
        """True while the suggestions are hidden, until the first pass is over."""
        return (self.reading["way"], self.reading["pass"]) == ("hidden_first", "first")

    def target(self, part: str = "") -> str:
        """Return the target of a line: this reading, or a part of it such as ``suggestion:3``."""
        return f"reading:{self.id}/{part}" if part else f"reading:{self.id}"

    def row(self, table: str, *key: str) -> dict[str, Any] | None:
        """Return a row of this reading, None if there is none."""
        return TableRows(self.connection).get(table, (self.id, *key))

    def record(
        self,
        action: str,
        *,
        part: str = "",
        before: Any = None,
        after: Any = None,
        comment: str = "",
        seconds: float | None = None,
    ) -> LogLine:
        """Append the line of an action and change the tables as it says."""
        line = append_line(
            self.connection,
            chain=self.reading["study_id"],
            reader=self.reader,
            target=self.target(part),
            action=action,
            before=before,
            after=after,
            comment=comment,
            seconds=seconds,
            study_sha256=self.study_sha256,
            model_sha256=self.model_sha256,
        )
        project(TableRows(self.connection), line)
        return line


def find_recording_sha256(connection: sa.Connection, study_id: str) -> str:
    """Return the SHA-256 of a study's recording, empty until it is known.

    Raises:
        ReadingNotFoundError: there is no such study.
    """
    found = connection.execute(sa.select(studies.c.sha256).where(studies.c.id == study_id)).first()
    if found is None:
        raise ReadingNotFoundError("there is no study of this id", hint="list the studies")
    return found.sha256 or ""
