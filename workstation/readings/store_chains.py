"""List the chains of the log, and compare the studies of the database with the lines of the store's chain."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa

from ..store import log, readings, studies
from .log import STORE_CHAIN, read_lines
from .log_faults import LogFaultError

__all__ = ["check_studies", "list_chains"]


def list_chains(connection: sa.Connection) -> list[str]:
    """Return the chains that the log has, and those that it must have: one for each study.

    Raises:
        LogFaultError: a chain has a name that is no text.
    """
    found: set[Any] = set()
    for column in (log.c.chain, studies.c.id, readings.c.study_id):
        found.update(connection.execute(sa.select(column).distinct()).scalars())
    if any(not isinstance(chain, str) for chain in found):
        raise LogFaultError("the log holds lines of no study", hint="restore a backup of the home folder")
    return sorted(found)


def check_studies(connection: sa.Connection, chains: Iterable[str]) -> None:
    """Compare the studies with the lines that say which were added and deleted.

    Args:
        connection: of ``Database.reading``.
        chains: of ``list_chains``; that of the store must have been verified.

    Raises:
        LogFaultError: a study has no line, or is missing without one.
    """
    logged: dict[str, set[str]] = {"study_added": set(), "study_deleted": set()}
    for line in read_lines(connection, STORE_CHAIN):
        if line.action in logged:
            logged[line.action].add(line.target.removeprefix("study:"))
    added, deleted = logged["study_added"], logged["study_deleted"]
    present = set(connection.execute(sa.select(studies.c.id)).scalars())
    faults = (
        (present - added, "is in the database, but the log of the store has no line that it was added"),
        (present & deleted, "is in the database, but was deleted, says the log of the store"),
        (added - deleted - present, "is gone, but the log of the store has no line that it was deleted"),
        (set(chains) - {STORE_CHAIN} - present, "has a log, but is not in the database"),
    )
    for wrong, cause in faults:
        if wrong:
            chain = min(wrong)
            raise LogFaultError(
                f"study {chain[:40]} {cause}", hint="restore a backup of the home folder", chain=chain
            )
