"""Verify a log: no line changed, missing, cut or rewritten, and the tables are what the log describes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DatabaseError

from capsule_edge.runtime.errors import InputError

from ..store import log
from .log import FIRST_HASH, STORE_CHAIN, LogLine, canonical_json, hash_line
from .log_faults import LogFaultError, damage_reported, is_damage, line_fault
from .raw_rows import decode_row, raw_columns
from .rebuilt_tables import differing_rows
from .store_chains import check_studies, list_chains

__all__ = ["VerifiedLog", "compare_tables", "verify_database", "verify_file", "verify_logs"]

# A line holds texts of at most some ten thousand characters, or some thousand ranges of frames.
_LONGEST_LINE = 16 << 20


@dataclass(frozen=True)
class VerifiedLog:
    """A log without a fault.

    Attributes:
        chain: id of the study, or ``store``.
        lines: number of lines.
        head: hash of the last line; 64 zeros for an empty log.
        since: number of lines that follow the line whose hash was asked for; None if none was asked for.
    """

    chain: str
    lines: int
    head: str
    since: int | None = None

    def document(self) -> dict[str, Any]:
        """Return the outcome as JSON values."""
        shown = {"chain": self.chain, "valid": True, "lines": self.lines, "head": self.head}
        return shown if self.since is None else {**shown, "lines_since": self.since}


def verify_database(
    connection: sa.Connection, study_id: str | None = None, *, head: str | None = None
) -> list[VerifiedLog]:
    """Verify the log of a study, or of all studies and of the store.

    Args:
        connection: of ``Database.reading``.
        study_id: of the study; None verifies all logs.
        head: hash that must stand in the log, from a report; None does not look for one.

    Raises:
        LogFaultError: a log has a fault; the message names the first line.
        InputError: there is no log of this study.
    """
    with damage_reported():
        found = verify_logs(connection, study_id, head=head)
        for verified in found:
            if differing := compare_tables(connection, verified):
                raise LogFaultError(
                    f"the tables of {verified.chain} are not what its log says: {len(differing)} rows differ, the "
                    f"first is {differing[0]}",
                    hint="if no line was cut from its end, verify-log --rebuild makes them anew; else restore a backup",
                    chain=verified.chain,
                )
    return found


def verify_logs(
    connection: sa.Connection, study_id: str | None = None, *, head: str | None = None
) -> list[VerifiedLog]:
    """Verify the lines of a study's log, or of all logs, and not the tables that they describe.

    Args:
        connection, study_id, head: as for ``verify_database``.

    Raises:
        LogFaultError: a log has a fault; the message names the first line.
        InputError: there is no log of this study.
    """
    chains = list_chains(connection)
    if study_id is not None and study_id not in chains:
        raise InputError(f"there is no study {study_id[:40]}", hint="name the id of a study in this home")
    chosen = chains if study_id is None else [study_id]
    found = [_verify_lines(_stored(connection, chain), chain, head) for chain in chosen]
    if study_id is None:
        check_studies(connection, chains)
    return _with_head(found, head)


def compare_tables(connection: sa.Connection, verified: VerifiedLog) -> list[str]:
    """Return the names of rows that are not what a verified log says, such as ``decisions suggestion:3``.

    Raises:
        LogFaultError: the log holds a line that this software did not write.
    """
    if verified.chain == STORE_CHAIN:
        return []
    lines = (LogLine(**document) for document in _stored(connection, verified.chain))
    try:
        return differing_rows(connection, lines, verified.chain)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise LogFaultError(
            f"the log of {verified.chain} holds a line that this software did not write",
            hint="restore a backup of the home folder",
            chain=verified.chain,
        ) from error


def _stored(connection: sa.Connection, chain: str) -> Iterator[dict[str, Any]]:
    """Yield the lines of a chain as the database holds them, also where one is damaged."""
    query = sa.select(*raw_columns(log.c)).where(log.c.chain == chain).order_by(log.c.sequence)
    rows, number = iter(connection.execute(query).mappings()), 0
    while True:
        number += 1
        try:
            row = next(rows, None)
        except DatabaseError as error:
            if not is_damage(error):
                raise
            raise line_fault(f"line {number} of {chain[:40]} cannot be read", chain, number) from error
        if row is None:
            return
        yield decode_row(row, log.c)


def verify_file(path: Path, *, head: str | None = None) -> VerifiedLog:
    """Verify an exported log.

    Args:
        path: of the JSON lines.
        head: hash that must stand in the log, from a report; None does not look for one.

    Raises:
        LogFaultError: the log has a fault; the message names the first line.
        InputError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            verified = _verify_lines(_parse(iter(lambda: file.readline(_LONGEST_LINE), b"")), None, head)
    except OSError as error:
        raise InputError(f"{path.name} cannot be read ({error.strerror})", hint="check the path") from error
    return _with_head([verified], head)[0]


def _parse(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    names = {field.name for field in fields(LogLine)}
    for number, raw in enumerate(lines, 1):
        text = raw.rstrip(b"\r\n")
        try:
            document = json.loads(text)
            whole = isinstance(document, dict) and document.keys() == names
            # Two readers may take different values from one line if a key stands in it twice.
            fault = "" if whole and canonical_json(document).encode() == text else "is not as it was written"
        except (ValueError, RecursionError):
            fault = "is no JSON"
        if fault:
            raise line_fault(f"line {number} {fault}", "", number)
        yield document


def _verify_lines(lines: Iterable[Mapping[str, Any]], chain: str | None, head: str | None) -> VerifiedLog:
    """Check the sequence and the hashes of the lines of one chain."""
    previous, number, found_at = FIRST_HASH, 0, None
    for line in lines:
        number += 1
        chain = line["chain"] if chain is None else chain
        where = f"line {number} of {str(chain)[:40]}"
        if line["chain"] != chain:
            raise line_fault(f"{where} belongs to another log", chain, number)
        if line["sequence"] != number:
            raise line_fault(
                f"{where} is missing, line {str(line['sequence'])[:20]} stands in its place", chain, number
            )
        if not _has_its_hash(line):
            raise line_fault(f"{where} was changed: its hash is another", chain, number)
        if line["previous_hash"] != previous:
            raise line_fault(
                f"{where} does not follow from the line before: lines were rewritten", chain, number
            )
        previous = line["hash"]
        if previous == head:
            found_at = number
    since = None if found_at is None else number - found_at
    return VerifiedLog(chain or "", number, previous, since)


def _has_its_hash(line: Mapping[str, Any]) -> bool:
    try:
        return bool(hash_line(dict(line)) == line["hash"])
    except (TypeError, ValueError, RecursionError):
        # A value that is no JSON was never hashed.
        return False


def _with_head(verified: list[VerifiedLog], head: str | None) -> list[VerifiedLog]:
    """Return the logs; with a head, only the one that holds it."""
    if head is None:
        return verified
    holding = [found for found in verified if found.since is not None]
    if holding:
        return holding
    raise LogFaultError(
        f"the hash {head[:12]}... stands in no line of {len(verified)} logs with "
        f"{sum(found.lines for found in verified):,} lines",
        hint="lines were cut or rewritten after the report was made, or the hash is of another log",
    )
