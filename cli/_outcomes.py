"""What became of the recordings of a run, as people, programs and streams are told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ._printing import console, echo_json, number, table

if TYPE_CHECKING:
    from capsule_edge.runtime import Study
    from capsule_edge.runtime.streaming import Lines

__all__ = ["Outcome", "failure", "print_json", "print_outcome", "tell_outcome", "worst_code"]


@dataclass(frozen=True)
class Outcome:
    """What became of one recording."""

    recording: Path
    folder: Path
    exit_code: int
    study: Study | None = None
    error: dict[str, str] | None = None
    # What an earlier run left whole, where there was nothing to resume.
    earlier: dict[str, Any] | None = None


def failure(error: Exception, video: Path, folder: Path) -> Outcome:
    """One of several recordings that failed does not stop the others."""
    from capsule_edge.runtime.errors import CapsuleEdgeError

    if isinstance(error, CapsuleEdgeError):
        found = {"code": error.code, "message": error.message, "hint": error.hint}
        return Outcome(video, folder, error.exit_code, error=found)
    found = {"code": "internal", "message": f"{type(error).__name__}: {error}", "hint": ""}
    return Outcome(video, folder, 1, error=found)


def worst_code(outcomes: Sequence[Outcome]) -> int:
    """The exit code of all: the first failure's, else 3 where one was not read whole, else 0."""
    codes = [outcome.exit_code for outcome in outcomes]
    return next((code for code in codes if code not in (0, 3)), max(codes, default=0))


def print_json(outcomes: Sequence[Outcome], exit_code: int, **more: Any) -> None:
    """One document; ``error`` is that of the first recording that failed, and absent where none did."""
    from capsule_edge.runtime.results import study_document

    recordings: list[dict[str, Any]] = []
    for outcome in outcomes:
        entry: dict[str, Any] = {"recording": str(outcome.recording), "exit_code": outcome.exit_code}
        if outcome.error is not None:
            entry["error"] = outcome.error
        else:
            study = outcome.earlier if outcome.study is None else study_document(outcome.study)
            entry |= {"out": str(outcome.folder), "study": study}
        recordings.append(entry)
    document = {"recordings": recordings, "exit_code": exit_code, **more}
    # As where a command fails as a whole: a code other than 0 and 3 always comes with ``error``.
    first = next((entry["error"] for entry in recordings if "error" in entry), None)
    if first is not None:
        document["error"] = first
    echo_json(document)


def print_outcome(outcome: Outcome) -> None:
    from capsule_edge.runtime.events import FIRST, rank_events
    from capsule_edge.runtime.recording import clock

    study = outcome.study
    if outcome.earlier is not None:
        console().print(f"{outcome.recording.name}: read whole already")
        console().print(f"report: {outcome.folder / 'report.html'}")
        return
    if study is None:
        error = outcome.error or {}
        text = f"error: {error['message']}" + (f" ({error['hint']})" if error["hint"] else "")
        click.echo(" ".join(text.split()), err=True)
        return
    screen, ledger = console(), study.ledger
    tenths = study.source.time_kind == "playback"
    screen.print(f"{study.source.name}: {_account(study)}")
    if study.events:
        names = {label.key: label.name for label in study.model.labels}
        events = table("event", "finding", "from", "to", "peak", "p", "frames")
        first = rank_events(study.events, most=FIRST)
        for event in sorted(first, key=lambda event: event.id):
            times = (clock(at, tenths=tenths) for at in (event.start_s, event.end_s, event.peak_s))
            events.add_row(
                str(event.id), names[event.label], *times, number(event.peak_p, 2), number(event.frames)
            )
        screen.print(events)
        if len(study.events) > len(first):
            rest = len(study.events) - len(first)
            screen.print(
                f"and {number(rest)} more in the report, which has the strongest of each finding first"
            )
    elif ledger.classified:
        screen.print("no finding above the operating points")
    screen.print(f"report: {outcome.folder / 'report.html'}")


def _account(study: Study) -> str:
    """The ledger in one line; silence never stands for a frame that was not read."""
    from capsule_edge.runtime.study import STATUSES

    ledger = study.ledger
    parts = [f"{getattr(ledger, status):,} {status}" for status in STATUSES if getattr(ledger, status)]
    cut = ", the file is cut" if ledger.truncated else ""
    return f"{ledger.container:,} frames: {', '.join(parts)}{cut}"


def tell_outcome(outcome: Outcome, lines: Lines | None, as_json: bool) -> None:
    if lines is None:
        if not as_json:
            print_outcome(outcome)
    elif outcome.study is None:
        lines.error(outcome.error or {}, exit_code=outcome.exit_code)
    else:
        lines.end(outcome.study.ledger, exit_code=outcome.exit_code, folder=outcome.folder)
