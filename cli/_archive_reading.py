"""``archive read``: open the model, list the recordings, read them with an engine, and print what became of them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from capsule_edge.runtime.errors import Interrupted
from capsule_edge.runtime.termination import as_interrupted

from ._outcomes import INCOMPLETE
from ._printing import console, echo_json, number

if TYPE_CHECKING:
    from capsule_edge.archive.engines import TaskEngine
    from capsule_edge.archive.manifest import Lease, Row
    from capsule_edge.archive.reading import ReadingOutcome, ReadingProgress, ReadSetup

__all__ = ["ArchiveOptions", "describe_row", "read_recordings"]

# Recordings that are named for people; the manifest has all.
_NAMED = 20


@dataclass(frozen=True, kw_only=True)
class ArchiveOptions:
    """The options of ``archive read``, as click parsed them."""

    out: Path
    model: Path | None
    backend: str
    ray: str | None
    workers: int
    tries: int
    memory_mb: int
    time_s: float
    split_frames: int
    capture_fps: float | None
    start_s: float | None
    end_s: float | None
    every: int
    gate: bool
    allow_saturation: bool
    retry: bool
    tables: bool
    as_json: bool

    def for_reader(self) -> dict[str, Any]:
        """Return the keyword arguments of ``Reader.read``."""
        from capsule_edge.runtime.preprocessing import THRESHOLD

        return {
            "capture_fps": self.capture_fps,
            "start_s": self.start_s,
            "end_s": self.end_s,
            "every": self.every,
            "gate": THRESHOLD if self.gate else None,
        }


def read_recordings(sources: Sequence[str], options: ArchiveOptions) -> int:
    """Read the recordings and return the exit code."""
    from capsule_edge.archive.packages import load_package
    from capsule_edge.archive.reading import DriverOptions, read_archive
    from capsule_edge.archive.sources import list_recordings

    load_package("pyarrow.parquet", needed_for="archive read")
    setup = _make_setup(options)
    open_engine = _choose_engine(setup, options)
    faults: list[str] = []

    def tabulate(lease: Lease) -> None:
        if options.tables:
            faults.extend(_write_tables(setup.out, options, lease))

    with _goes_on(), _progress(options.out) as progress:
        outcome = read_archive(
            setup,
            lambda: list_recordings(sources, leave_out=options.out),
            open_engine,
            options=DriverOptions(tries=options.tries, retry_set_aside=options.retry),
            progress=progress,
            after=tabulate,
        )
    for fault in faults:
        click.echo(f"warning: not in the tables: {fault}", err=True)
    code = 0 if outcome.whole else INCOMPLETE
    if options.as_json:
        echo_json(_document(outcome, options.out, code))
    else:
        _print(outcome, options.out)
    return code


def _make_setup(options: ArchiveOptions) -> ReadSetup:
    """Open the model once, so that a fault of it is one error, and return what the workers need."""
    from capsule_edge.archive.reading import ReadSetup, tool_hash
    from capsule_edge.runtime.inference import default_model
    from capsule_edge.runtime.reader import Reader

    model = options.model or default_model()
    with Reader.open(
        model, backend=options.backend, threads=1, allow_saturation=options.allow_saturation
    ) as reader:
        path = Path(model)
        return ReadSetup(
            out=options.out.absolute(),
            model=str(path.absolute() if path.exists() else model),
            model_sha256=reader.model_sha256,
            backend=reader.backend_name,
            options=options.for_reader(),
            tool=tool_hash(),
            split_frames=options.split_frames,
            allow_saturation=options.allow_saturation,
        )


def _choose_engine(setup: ReadSetup, options: ArchiveOptions) -> Callable[[], TaskEngine]:
    """Return a function that opens the engine. Raises ``PackageError`` at once if Ray is asked for and absent."""
    from capsule_edge.archive.engines import ProcessEngine, RayEngine, TaskLimits
    from capsule_edge.archive.packages import load_package
    from capsule_edge.archive.reading import check_worker, perform

    limits = TaskLimits(options.memory_mb << 20, options.time_s)
    if options.ray is None:
        return lambda: ProcessEngine(perform, setup, workers=options.workers, limits=limits)
    load_package("ray", needed_for="--ray")
    address = None if options.ray == "local" else options.ray
    return lambda: RayEngine(
        perform,
        setup,
        address=address,
        workers=options.workers,
        limits=limits,
        check=check_worker,
        notes=setup.out / "work" / "ended",
    )


def _write_tables(out: Path, options: ArchiveOptions, lease: Lease) -> list[str]:
    """Write the tables on processes of this machine, and return what could not be written."""
    from capsule_edge.archive.engines import ProcessEngine, TaskLimits
    from capsule_edge.archive.tables import update_tables, write_batch

    limits = TaskLimits(options.memory_mb << 20, options.time_s)
    return update_tables(
        out,
        lambda: ProcessEngine(write_batch, out, workers=options.workers, limits=limits),
        alive=lease.renew,
    )


@contextmanager
def _goes_on() -> Iterator[None]:
    """After Ctrl-C or SIGTERM, tell that the same command goes on."""
    try:
        yield
    except KeyboardInterrupt as error:
        raise as_interrupted(error, "what was read is recorded", hint="the same command goes on") from None
    except Interrupted:
        raise


@contextmanager
def _progress(out: Path) -> Iterator[ReadingProgress]:
    """Yield what is told how the reading goes on: a file for Prometheus, and a bar where stderr is a terminal."""
    from capsule_edge.archive.reading import ArchiveMetrics

    metrics = ArchiveMetrics(out / "metrics.prom")
    if not sys.stderr.isatty():
        yield metrics
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        yield _Bar(metrics, bar, bar.add_task("", total=None))


class _Bar:
    """Tell the metrics and a bar."""

    def __init__(self, metrics: ReadingProgress, bar: Any, task: Any) -> None:
        self._metrics, self._bar, self._task = metrics, bar, task

    def update(self, outcome: ReadingOutcome, *, running: int, waiting: int, workers: int) -> None:
        self._metrics.update(outcome, running=running, waiting=waiting, workers=workers)
        text = f"recordings, {outcome.frames:,} frames, {running} of {workers} workers busy"
        self._bar.update(self._task, completed=outcome.done, total=outcome.listed, description=text)


def _print(outcome: ReadingOutcome, out: Path) -> None:
    show = console().print
    counts = {
        "read": outcome.read,
        "not whole": outcome.incomplete,
        "failed": outcome.failed,
        "set aside": outcome.set_aside,
    }
    parts = ", ".join(f"{number(count)} {name}" for name, count in counts.items() if count)
    earlier = f" ({number(outcome.unchanged)} by an earlier run)" if outcome.unchanged else ""
    show(f"{number(outcome.listed)} recordings{earlier}: {parts or 'none'}")
    show(f"frames read now: {number(outcome.frames)}")
    if outcome.copies:
        show(f"copies that share the result of another recording: {number(len(outcome.copies))}")
    for refusal in outcome.refusals:
        click.echo(f"warning: {refusal.node} got no work: {refusal.message}", err=True)
    for note in outcome.passed_over[:_NAMED]:
        click.echo(f"warning: passed over: {note}", err=True)
    if len(outcome.passed_over) > _NAMED:
        more = number(len(outcome.passed_over) - _NAMED)
        click.echo(f"warning: and {more} more were passed over, see --json", err=True)
    for row in outcome.rows[:_NAMED]:
        click.echo(f"warning: {describe_row(row)}", err=True)
    if len(outcome.rows) > _NAMED:
        more = number(len(outcome.rows) - _NAMED)
        click.echo(f"warning: and {more} more, see 'capsule-edge archive status {out} --list'", err=True)


def describe_row(row: Row) -> str:
    """Return one line on a recording that was not read whole."""
    state = {"incomplete": "not whole", "failed": "failed", "set_aside": "set aside"}[row.state]
    return " ".join(f"{row.recording}: {state}, {row.cause}: {row.message}".split())


def _document(outcome: ReadingOutcome, out: Path, code: int) -> dict[str, Any]:
    return {
        "out": str(out),
        "recordings": outcome.listed,
        "unchanged": outcome.unchanged,
        "states": {name: getattr(outcome, name) for name in ("read", "incomplete", "failed", "set_aside")},
        "frames": outcome.frames,
        "not_whole": [
            {"recording": row.recording, "state": row.state, "cause": row.cause, "message": row.message}
            for row in outcome.rows
        ],
        "copies": [{"recording": recording, "copy_of": first} for recording, first in outcome.copies],
        "passed_over": outcome.passed_over,
        "refused": [{"node": each.node, "message": each.message} for each in outcome.refusals],
        "exit_code": code,
    }
