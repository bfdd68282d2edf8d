"""Keep which frames a human has seen or skimmed, and how long the reading took."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from ..store import coverage
from .entries import check_ranges, check_seconds
from .ranges import as_lists, subtract, unite
from .recorder import Recorder
from .result_facts import ResultFacts

__all__ = ["add_seen", "find_coverage"]


def add_seen(
    connection: sa.Connection,
    facts: ResultFacts,
    reading_id: str,
    *,
    seen: Sequence[Sequence[int]] = (),
    skimmed: Sequence[Sequence[int]] = (),
    seconds: float = 0.0,
    at_most_s: float | None = None,
    reader: str | None = None,
) -> bool:
    """Add frames that were seen or skimmed, and time of active reading. Return whether anything was added.

    Args:
        connection: of ``Database.writing``.
        facts: of the reading's result.
        reading_id: of the reading.
        seen: ranges [start, end) of frames that were painted in a visible window for 1/15 s or longer.
        skimmed: ranges of frames that were painted for less.
        seconds: of active reading since the last call.
        at_most_s: time that has really passed since the last call; None where it is not known.
        reader: name of the person who saw them; None for the one who opened the reading.

    Raises:
        ReadingNotFoundError: there is no such reading.
        ReadingConflictError: it is finished.
        ReadingValueError: a range leaves the recording, or the time is not allowed.
    """
    new_seen = check_ranges(seen, frames=facts.frames, name="the frames seen")
    new_skimmed = check_ranges(skimmed, frames=facts.frames, name="the frames skimmed")
    seconds = check_seconds(seconds, name="the time of reading")
    if at_most_s is not None:
        seconds = min(seconds, max(0.0, at_most_s))
    recorder = Recorder.of(connection, reading_id, reader=reader)
    known = find_coverage(connection, reading_id)
    new_seen = subtract(new_seen, unite(known["seen"]))
    new_skimmed = subtract(new_skimmed, unite(known["seen"], known["skimmed"], new_seen))
    if not (new_seen or new_skimmed or seconds):
        return False
    after = {"seen": as_lists(new_seen), "skimmed": as_lists(new_skimmed)}
    recorder.record("see", part="coverage", after=after, seconds=seconds)
    return True


def find_coverage(connection: sa.Connection, reading_id: str) -> dict[str, Any]:
    """Return the ranges ``seen`` and ``skimmed`` as JSON values; no frame lies in both."""
    row = connection.execute(sa.select(coverage).where(coverage.c.reading_id == reading_id)).first()
    return {"seen": row.seen, "skimmed": row.skimmed} if row else {"seen": [], "skimmed": []}
