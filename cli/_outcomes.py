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
    from capsule_edge.runtime.study import Ledger

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
    from capsule_edge.runtime.events import FIRST, rank_events

    show = console().print
    show(f"{study.source.name}: {_count_frames(study.ledger)}")
    if study.events:
        first = rank_events(study.events, most=FIRST)
        show(_event_table(study, {event.id for event in first}))
        if len(study.events) > len(first):
            rest = len(study.events) - len(first)
            show(f"and {number(rest)} more in the report, which shows the strongest of each finding first")
    elif study.ledger.classified:
        show("no finding reaches the model's operating points")


def _event_table(study: Study, shown: set[int]) -> Any:
    """Return a table of the events whose ids are in ``shown``, in the order of their ids."""
    from capsule_edge.runtime.recording import clock

    tenths = study.source.time_kind == "playback"
    names = {label.key: label.name for label in study.model.labels}
    rows = table("event", "finding", "from", "to", "peak", "p", "frames")
    for event in sorted(study.events, key=lambda event: event.id):
        if event.id in shown:
            times = (clock(at, tenths=tenths) for at in (event.start_s, event.end_s, event.peak_s))
            rows.add_row(
                str(event.id), names[event.label], *times, number(event.peak_p, 2), number(event.frames)
            )
    return rows


def _count_frames(ledger: Ledger) -> str:
    """Return the ledger in one line: all frames, and how many have each status."""
    from capsule_edge.runtime.study import STATUSES

    parts = [f"{getattr(ledger, status):,} {status}" for status in STATUSES if getattr(ledger, status)]
    cut = ", the file is cut" if ledger.truncated else ""
    return f"{ledger.container:,} frames: {', '.join(parts)}{cut}"
