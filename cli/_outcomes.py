"""The outcome of reading each recording, printed for people, as JSON or as JSON lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from ._names import NamedRecording
from ._printing import console, echo_json, number, table

if TYPE_CHECKING:
    from capsule_edge.runtime import Study
    from capsule_edge.runtime.streaming import Lines
    from capsule_edge.runtime.study import Ledger, MeasuredPrecision, Suggestion

__all__ = ["INCOMPLETE", "Outcome", "failed", "print_json", "print_outcome", "report_outcome", "worst_code"]

INCOMPLETE = 3
"""Exit code for a recording that was read, but whose frames are corrupt or missing, or whose file is cut."""


@dataclass(frozen=True)
class Outcome:
    """The outcome of one recording. Exactly one of ``study``, ``error`` and ``earlier`` is set.

    Attributes:
        recording: the recording, its results folder, and what both are called.
        exit_code: 0, 3 for an incomplete recording, or that of the error.
        study: the study, if the recording was read.
        error: code, message and hint, if it could not be read.
        earlier: ``study.json`` of an earlier run, if that had read the recording already.
    """

    recording: NamedRecording
    exit_code: int
    study: Study | None = None
    error: dict[str, str] | None = None
    earlier: dict[str, Any] | None = None

    def document(self) -> dict[str, Any] | None:
        """Return the content of ``study.json``; None for a recording that could not be read."""
        from capsule_edge.runtime.results import study_document

        return self.earlier if self.study is None else study_document(self.study)


def failed(error: Exception, recording: NamedRecording) -> Outcome:
    """Return the outcome of a recording that could not be read."""
    from capsule_edge.runtime.errors import CapsuleEdgeError

    if isinstance(error, CapsuleEdgeError):
        found = {"code": error.code, "message": error.message, "hint": error.hint}
        return Outcome(recording, error.exit_code, error=found)
    found = {"code": "internal", "message": f"{type(error).__name__}: {error}", "hint": ""}
    return Outcome(recording, 1, error=found)


def worst_code(outcomes: Sequence[Outcome]) -> int:
    """Return the exit code for all: the first failure's, or 3 if a recording was incomplete, or 0."""
    codes = [outcome.exit_code for outcome in outcomes]
    return next((code for code in codes if code not in (0, INCOMPLETE)), max(codes, default=0))


def print_json(outcomes: Sequence[Outcome], exit_code: int, **more: Any) -> None:
    """Print one JSON document with an entry for each recording and the keys ``more``.

    Its ``error`` is that of the first recording that failed. Without a failure there is no such key.
    """
    recordings: list[dict[str, Any]] = []
    for outcome in outcomes:
        entry: dict[str, Any] = {"recording": outcome.recording.shown, "exit_code": outcome.exit_code}
        if outcome.error is not None:
            entry["error"] = outcome.error
        else:
            entry |= {"out": outcome.recording.shown_folder, "study": outcome.document()}
        recordings.append(entry)
    document = {"recordings": recordings, "exit_code": exit_code, **more}
    # A program may rely on this: an exit code other than 0 and 3 always comes with ``error``.
    first = next((entry["error"] for entry in recordings if "error" in entry), None)
    if first is not None:
        document["error"] = first
    echo_json(document)


def report_outcome(outcome: Outcome, lines: Lines | None, *, as_json: bool) -> None:
    """Report a recording when it is done: in its JSON lines, or for people; later, all at once, for ``--json``."""
    for warning in outcome.study.warnings if outcome.study is not None else ():
        click.echo(f"warning: {outcome.recording.title}: {warning.message}", err=True)
    if lines is None:
        if not as_json:
            print_outcome(outcome)
    elif outcome.study is None:
        lines.error(outcome.error or {}, exit_code=outcome.exit_code)
    else:
        lines.end(
            outcome.study.ledger,
            exit_code=outcome.exit_code,
            folder=outcome.recording.shown_folder,
            warnings=outcome.study.warnings,
            suggestions=None if outcome.study.suggestions is None else len(outcome.study.suggestions),
        )


def print_outcome(outcome: Outcome) -> None:
    """Print the outcome of one recording for people; an error goes to stderr."""
    if outcome.study is not None:
        _print_study(outcome.study)
    elif outcome.earlier is not None:
        console().print(f"{outcome.recording.title}: an earlier run has read it already")
    else:
        error = outcome.error or {}
        text = f"error: {error['message']}" + (f" ({error['hint']})" if error["hint"] else "")
        click.echo(" ".join(text.split()), err=True)
        return
    console().print(f"report: {outcome.recording.report}")


def _print_study(study: Study) -> None:
    from capsule_edge.runtime.events import FIRST

    show = console().print
    show(f"{study.source.name}: {_count_frames(study.ledger)}")
    suggestions = study.suggestions or ()
    if suggestions:
        show(
            f"suggestions: {number(len(suggestions))}, best score first (events: {number(len(study.events))})"
        )
        show(_suggestion_table(study, suggestions[:FIRST]))
        if len(suggestions) > FIRST:
            show(f"and {number(len(suggestions) - FIRST)} more in the report")
        show(_score_note(study))
    elif study.ledger.classified:
        show("no finding reaches the model's operating points")


def _suggestion_table(study: Study, suggestions: Sequence[Suggestion]) -> Any:
    """Return a table of suggestions, with the times of the leading event of each."""
    from capsule_edge.runtime.recording import clock

    tenths = study.source.time_kind == "playback"
    names = {label.key: label.name for label in study.model.labels}
    events = {event.id: event for event in study.events}
    rows = table("suggestion", "finding", "from", "to", "peak", "score", "right of such", "similar")
    for one in suggestions:
        event = events[one.events[0]]
        times = (clock(at, tenths=tenths) for at in (event.start_s, event.end_s, event.peak_s))
        finding = " or ".join(
            names[label] for label in (one.label, *(other.label for other in one.alternatives))
        )
        right = "not measured" if one.precision is None else _right(one.precision)
        rows.add_row(str(one.id), finding, *times, number(one.score, 2), right, number(one.similar))
    return rows


def _right(found: MeasuredPrecision) -> str:
    """Return a measured precision such as ``62 % (45 to 77 %, n = 40)``."""
    estimate, low, high = (f"{100 * share:.0f}" for share in (found.estimate, found.low, found.high))
    return f"{estimate} % ({low} to {high} %, n = {found.n})"


def _score_note(study: Study) -> str:
    """Return one line on what the score is, and where its precision was measured."""
    rule = study.model.suggestions
    if rule is None or rule.weights is None:
        return "score: mean probability of the finding over its frames; what it is worth was not measured"
    return f"score: estimated probability that the finding is there; precision measured on {rule.measured_on}"


def _count_frames(ledger: Ledger) -> str:
    """Return the ledger in one line: all frames, and how many have each status."""
    from capsule_edge.runtime.study import STATUSES

    parts = [f"{getattr(ledger, status):,} {status}" for status in STATUSES if getattr(ledger, status)]
    cut = ", the file is cut" if ledger.truncated else ""
    return f"{ledger.container:,} frames: {', '.join(parts)}{cut}"
