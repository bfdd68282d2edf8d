"""Append to the log of a study. Each line holds the hash of the line before, so that no line can be changed unseen.

The hash of a line is the SHA-256 of its canonical JSON without ``hash``: keys in order, no spaces, UTF-8. The first
line of a chain has 64 zeros as the hash before it. Each study has a chain of its own, so that it can be deleted with
all of its data. The chain ``store`` holds what concerns the whole store, and no patient data.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa

from capsule_edge.runtime import __version__

from ..store import log, utc_now

__all__ = [
    "FIRST_HASH",
    "STORE_CHAIN",
    "LogLine",
    "append_line",
    "canonical_json",
    "hash_line",
    "head_hash",
    "read_lines",
]

STORE_CHAIN = "store"
FIRST_HASH = "0" * 64


@dataclass(frozen=True, kw_only=True)
class LogLine:
    """A line of the log.

    Attributes:
        chain: id of the study, or ``store``.
        sequence: number in the chain, from 1.
        previous_hash: hash of the line before.
        utc: time of the action, ISO 8601.
        reader: name that was typed in; empty for an action of the software.
        study_sha256: SHA-256 of the recording; empty until it is known.
        model_sha256: SHA-256 of the model whose suggestions were shown; empty where none were.
        tool_version: version of this software.
        target: object of the action, such as ``reading:ID/suggestion:3``.
        action: the action, such as ``decide``.
        before, after: state of the target, JSON values.
        comment: of the reader.
        seconds: time that the reader took; None where it was not measured.
        hash: of this line.
    """

    chain: str
    sequence: int
    previous_hash: str
    utc: str
    reader: str
    study_sha256: str
    model_sha256: str
    tool_version: str
    target: str
    action: str
    before: Any
    after: Any
    comment: str
    seconds: float | None
    hash: str = ""

    def document(self) -> dict[str, Any]:
        """Return the line as JSON values."""
        return asdict(self)


def hash_line(document: dict[str, Any]) -> str:
    """Return the SHA-256 of a line, hexadecimal.

    Args:
        document: the line as JSON values; its ``hash`` is left out.
    """
    content = {key: value for key, value in document.items() if key != "hash"}
    return hashlib.sha256(canonical_json(content).encode("utf-8", "surrogatepass")).hexdigest()


def canonical_json(document: dict[str, Any]) -> str:
    """Return a line as the text that is hashed and exported: keys in order, no spaces."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def read_lines(connection: sa.Connection, chain: str) -> Iterator[LogLine]:
    """Yield the lines of a chain in order."""
    query = sa.select(log).where(log.c.chain == chain).order_by(log.c.sequence)
    for row in connection.execute(query).mappings():
        yield LogLine(**row)


def head_hash(connection: sa.Connection, chain: str) -> str:
    """Return the hash of the last line of a chain; 64 zeros for an empty chain."""
    return _last(connection, chain)[1]


def append_line(
    connection: sa.Connection,
    *,
    chain: str,
    reader: str,
    target: str,
    action: str,
    before: Any = None,
    after: Any = None,
    comment: str = "",
    seconds: float | None = None,
    study_sha256: str = "",
    model_sha256: str = "",
) -> LogLine:
    """Append a line in the caller's transaction, which also changes the tables that the line describes.

    Args:
        connection: of ``Database.writing``.
        chain, reader, target, action, before, after, comment, seconds, study_sha256, model_sha256: as in ``LogLine``.

    Returns:
        The line, with its hash.
    """
    sequence, previous = _last(connection, chain)
    line = LogLine(
        chain=chain,
        sequence=sequence + 1,
        previous_hash=previous,
        utc=utc_now(),
        reader=reader,
        study_sha256=study_sha256,
        model_sha256=model_sha256,
        tool_version=__version__,
        target=target,
        action=action,
        before=before,
        after=after,
        comment=comment,
        # SQLite returns a float, and 3 and 3.0 have different hashes.
        seconds=None if seconds is None else float(seconds),
    )
    document = line.document()
    document["hash"] = hash_line(document)
    connection.execute(sa.insert(log).values(**document))
    return LogLine(**document)


def _last(connection: sa.Connection, chain: str) -> tuple[int, str]:
    query = sa.select(log.c.sequence, log.c.hash).where(log.c.chain == chain)
    row = connection.execute(query.order_by(log.c.sequence.desc()).limit(1)).first()
    return (row.sequence, row.hash) if row else (0, FIRST_HASH)
