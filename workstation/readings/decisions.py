"""Decide on suggestions, and add findings of one's own. Each decision names the version that the reader saw."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from ..store import decisions, log, new_id, readings
from .entries import check_choice, check_frame, check_id, check_label, check_range, check_seconds, check_text
from .projection import DECISION_FIELDS
from .reading_errors import ReadingConflictError, ReadingNotFoundError, ReadingValueError
from .recorder import Recorder
from .result_facts import ResultFacts, SuggestionFacts

__all__ = ["FINDING_VERDICTS", "VERDICTS", "add_finding", "decide", "decision_document", "find_decisions"]

VERDICTS = ("confirmed", "rejected", "relabelled", "undecided")
"""Verdicts on a suggestion."""
FINDING_VERDICTS = ("added", "removed")
"""Verdicts on a finding of one's own."""


def decision_document(row: dict[str, Any]) -> dict[str, Any]:
    """Return a decision as JSON values.

    Args:
        row: from ``find_decisions``.
    """
    names = ("target", *DECISION_FIELDS, "reader", "seconds", "decided_at", "version")
    return {name: row[name] for name in names}


def find_decisions(
    connection: sa.Connection, reading_id: str, *, target: str | None = None
) -> list[dict[str, Any]]:
    """Return the decisions of a reading, or the one on ``target``, each with the ``reader`` who made it.

    The version of a decision is the number of its line in the log, which names the reader.
    """
    line = sa.and_(log.c.chain == readings.c.study_id, log.c.sequence == decisions.c.version)
    query = (
        sa.select(decisions, sa.func.coalesce(log.c.reader, "").label("reader"))
        .join(readings, readings.c.id == decisions.c.reading_id)
        .outerjoin(log, line)
        .where(decisions.c.reading_id == reading_id)
        .order_by(decisions.c.target)
    )
    if target is not None:
        query = query.where(decisions.c.target == target)
    return [dict(row) for row in connection.execute(query).mappings()]


def _find_row(recorder: Recorder, target: str) -> dict[str, Any] | None:
    return next(iter(find_decisions(recorder.connection, recorder.id, target=target)), None)


def decide(
    connection: sa.Connection,
    facts: ResultFacts,
    reading_id: str,
    target: str,
    *,
    verdict: str,
    version: int,
    result_id: str | None = None,
    label: str | None = None,
    comment: str = "",
    seconds: float | None = None,
    start_index: int | None = None,
    end_index: int | None = None,
    key_index: int | None = None,
    reader: str | None = None,
) -> dict[str, Any]:
    """Decide on a suggestion, or change a finding of one's own. Return the decision as JSON values.

    Args:
        connection: of ``Database.writing``.
        facts: of the reading's result.
        reading_id: of the reading.
        target: ``suggestion:3`` or ``finding:ID``.
        verdict: one of ``VERDICTS``, or of ``FINDING_VERDICTS`` for a finding.
        version: of the decision that the reader saw; 0 where there was none.
        result_id: of the result whose suggestions the reader saw; None does not check it.
        label: of a suggestion that is relabelled, or of a finding.
        comment: in the reader's own words.
        seconds: time that the reader took.
        start_index, end_index: frames [start, end) of a finding; None keeps them.
        key_index: the frame that shows it best; None takes the model's, or keeps the finding's.
        reader: name of the person who decides; None for the one who opened the reading.

    Raises:
        ReadingNotFoundError: there is no such reading, suggestion or finding.
        ReadingConflictError: another window has decided meanwhile, the reader saw another result, or the reading is
            finished.
        ReadingValueError: a value is not allowed.
    """
    recorder = Recorder.of(connection, reading_id, reader=reader)
    _check_result(recorder, result_id)
    row = _find_row(recorder, target)
    suggestion = _find(recorder, facts, target, row)
    _check_version(row, version)
    state: dict[str, Any] = {"comment": check_text(comment, name="the comment")}
    if suggestion is not None:
        state |= _suggestion_state(facts, suggestion, verdict, label, key_index)
    else:
        chosen = (label, start_index, end_index, key_index)
        state |= _finding_state(facts, row or {}, verdict, *chosen)
    recorder.record(
        "decide",
        part=target,
        before=row and {name: row[name] for name in DECISION_FIELDS},
        after={name: state[name] for name in DECISION_FIELDS},
        comment=comment,
        seconds=None if seconds is None else check_seconds(seconds),
    )
    return decision_document(_find_row(recorder, target) or {})


def add_finding(
    connection: sa.Connection,
    facts: ResultFacts,
    reading_id: str,
    *,
    label: str,
    start_index: int,
    end_index: int,
    key_index: int | None = None,
    comment: str = "",
    seconds: float | None = None,
    finding_id: str | None = None,
    reader: str | None = None,
) -> dict[str, Any]:
    """Add a finding of one's own on a frame or range. Return it as JSON values.

    Args:
        connection: of ``Database.writing``.
        facts: of the reading's result.
        reading_id: of the reading.
        label: of the model, or ``other: text``.
        start_index, end_index: its frames [start, end).
        key_index: the frame that shows it best; None takes the first.
        comment: in the reader's own words.
        seconds: time that the reader took.
        finding_id: chosen by the caller, so that a request can be repeated after a lost answer; None chooses one.
        reader: name of the person who adds it; None for the one who opened the reading.

    Raises:
        ReadingNotFoundError: there is no such reading.
        ReadingConflictError: there is another finding of this id, or the reading is finished.
        ReadingValueError: a value is not allowed.
    """
    recorder = Recorder.of(connection, reading_id, reader=reader)
    target = f"finding:{new_id() if finding_id is None else check_id(finding_id, name='the id')}"
    state = {
        "comment": check_text(comment, name="the comment"),
        **_finding_state(facts, {}, "added", label, start_index, end_index, key_index),
    }
    if row := _find_row(recorder, target):
        if all(row[name] == state[name] for name in DECISION_FIELDS):
            return decision_document(row)
        raise ReadingConflictError("there is another finding of this id", current=decision_document(row))
    taken = None if seconds is None else check_seconds(seconds)
    after = {name: state[name] for name in DECISION_FIELDS}
    recorder.record("add", part=target, after=after, comment=comment, seconds=taken)
    return decision_document(_find_row(recorder, target) or {})


def _find(
    recorder: Recorder, facts: ResultFacts, target: str, row: dict[str, Any] | None
) -> SuggestionFacts | None:
    """Return the suggestion that a target names; None where it names a finding that was added."""
    kind, _, number = target.partition(":")
    if kind == "finding" and row is not None:
        return None
    if kind == "suggestion" and number.isascii() and number.isdigit() and str(int(number[:9])) == number:
        if recorder.hides_suggestions:
            raise ReadingConflictError(
                "the suggestions are hidden until the first pass is over", hint="begin the second pass first"
            )
        if suggestion := facts.suggestions.get(int(number)):
            return suggestion
    raise ReadingNotFoundError(
        f"the reading has no {target[:48]!r}",
        hint="name a suggestion (suggestion:1) or a finding that was added",
    )


def _check_result(recorder: Recorder, result_id: str | None) -> None:
    """Raise a conflict for another result. Suggestion 3 of another result is another suggestion."""
    known = recorder.reading["result_id"]
    if result_id not in (None, known):
        raise ReadingConflictError(
            f"the decision is about the result {str(result_id)[:32]!r}, the reading is about {known!r}",
            hint="load the suggestions of the reading's result and decide again",
        )


def _check_version(row: dict[str, Any] | None, version: int) -> None:
    current = row["version"] if row else 0
    if version == current:
        return
    if row is None:
        raise ReadingConflictError(f"the version is {version}, it is 0 before the first decision")
    raise ReadingConflictError(
        f"this was decided meanwhile ({row['verdict']})",
        hint="look at the decision as it is now, and decide again",
        current=decision_document(row),
    )


def _suggestion_state(
    facts: ResultFacts, suggestion: SuggestionFacts, verdict: str, label: str | None, key_index: int | None
) -> dict[str, Any]:
    check_choice(verdict, name="the verdict", allowed=VERDICTS)
    if verdict == "relabelled":
        label = check_label(label, labels=facts.labels)
        if label == suggestion.label:
            raise ReadingValueError(f"the label is {label!r} already", hint="confirm the suggestion")
    elif label not in (None, suggestion.label):
        raise ReadingValueError(
            f"the label is {str(label)[:40]!r} with the verdict {verdict}", hint="use the verdict relabelled"
        )
    decided = verdict != "undecided"
    key = suggestion.key_index if key_index is None else key_index
    return {
        "verdict": verdict,
        "label": (label or suggestion.label) if decided else None,
        "start_index": suggestion.start_index if decided else None,
        "end_index": suggestion.end_index if decided else None,
        "key_index": check_frame(key, frames=facts.frames, name="the key frame") if decided else None,
    }


def _finding_state(
    facts: ResultFacts,
    row: dict[str, Any],
    verdict: str,
    label: str | None,
    start_index: int | None,
    end_index: int | None,
    key_index: int | None,
) -> dict[str, Any]:
    check_choice(verdict, name="the verdict", allowed=FINDING_VERDICTS)
    start, end = check_range(
        row.get("start_index") if start_index is None else start_index,
        row.get("end_index") if end_index is None else end_index,
        frames=facts.frames,
        name="the finding",
    )
    key = row.get("key_index", start) if key_index is None else key_index
    if not start <= check_frame(key, frames=facts.frames, name="the key frame") < end:
        raise ReadingValueError(
            f"the key frame is {key}, allowed is a frame of the finding, {start} to {end - 1}"
        )
    return {
        "verdict": verdict,
        "label": check_label(row.get("label") if label is None else label, labels=facts.labels),
        "start_index": start,
        "end_index": end,
        "key_index": key,
    }
