"""Make the tables of readings anew from logs that were verified. Refuse where the tables know more than the log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from ..store import decisions, landmarks, readings, studies
from .log import STORE_CHAIN
from .log_faults import LogFaultError, damage_reported
from .rebuilt_tables import rebuild
from .verify import VerifiedLog, compare_tables, verify_logs

__all__ = ["RepairedTables", "repair_tables"]

_VERSIONS = (
    sa.select(studies.c.examination_version, studies.c.id.label("study_id")),
    sa.select(readings.c.version, readings.c.study_id),
    sa.select(decisions.c.version, readings.c.study_id).join(
        readings, readings.c.id == decisions.c.reading_id
    ),
    sa.select(landmarks.c.version, readings.c.study_id).join(
        readings, readings.c.id == landmarks.c.reading_id
    ),
)


@dataclass(frozen=True)
class RepairedTables:
    """The tables of a study that were compared with its log.

    Attributes:
        verified: the log.
        rows: names of the rows that differed and were made anew, such as ``decisions suggestion:3``.
    """

    verified: VerifiedLog
    rows: list[str]

    def document(self) -> dict[str, Any]:
        """Return the outcome as JSON values."""
        return {**self.verified.document(), "rebuilt": self.rows}


def repair_tables(
    connection: sa.Connection, study_id: str | None = None, *, head: str | None = None
) -> list[RepairedTables]:
    """Verify the log of a study, or all logs, and make the tables anew where they differ from it.

    Args:
        connection: of ``Database.writing``.
        study_id: of the study; None takes all studies and the store.
        head: hash that must stand in the log, from a report; None does not look for one. Only with the hash of the
            last line are tables made anew that are newer than the log.

    Raises:
        LogFaultError: a log has a fault, or the tables hold lines that the log lacks. Nothing was changed.
        InputError: there is no log of this study.
    """
    with damage_reported():
        found = verify_logs(connection, study_id, head=head)
        return [RepairedTables(each, _repair(connection, each)) for each in found]


def _repair(connection: sa.Connection, verified: VerifiedLog) -> list[str]:
    chain = verified.chain
    rows = [] if chain == STORE_CHAIN else compare_tables(connection, verified)
    if not rows:
        return rows
    newest = _find_newest(connection, chain)
    if newest > verified.lines and verified.since != 0:
        raise LogFaultError(
            f"the tables of {chain} hold line {newest}, its log ends with line {verified.lines}: lines were cut",
            hint="restore a backup; to lose the lines, name the hash of the last line with --head",
            chain=chain,
        )
    try:
        rebuild(connection, chain)
    except IntegrityError as error:
        raise LogFaultError(
            f"the log of {chain} names a result that is not in the database",
            hint="restore a backup of the home folder",
            chain=chain,
        ) from error
    if left := compare_tables(connection, verified):
        raise LogFaultError(
            f"the tables of {chain} cannot be made anew: {left[0]} still differs",
            hint="restore a backup of the home folder",
            chain=chain,
        )
    return rows


def _find_newest(connection: sa.Connection, study_id: str) -> int:
    """Return the greatest number of a line that a row of the study names."""
    named = [
        row[0]
        for query in _VERSIONS
        for row in connection.execute(query)
        if row.study_id == study_id and isinstance(row[0], int)
    ]
    return max(named, default=0)
