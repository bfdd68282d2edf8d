"""Read one recording into its run folder, with a progress bar and an answer to Ctrl-C, SIGTERM and full disks."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capsule_edge.runtime.errors import OutputError
from capsule_edge.runtime.termination import as_interrupted

from ._lines import watch_pipe
from ._names import NamedRecording
from ._outcomes import INCOMPLETE, Outcome

if TYPE_CHECKING:
    from capsule_edge.runtime import Reader, Study
    from capsule_edge.runtime.results import Run
    from capsule_edge.runtime.streaming import Lines

__all__ = ["other_study", "read_recording"]

_RESUME_HINT = "the same command with --resume goes on"


def read_recording(
    reader: Reader,
    recording: NamedRecording,
    run: Run,
    options: Mapping[str, Any],
    *,
    threads: int,
    lines: Lines | None = None,
    resumable: bool = True,
) -> Outcome:
    """Read a recording and write its study into the run folder.

    A complete study that an earlier run left in the folder is returned as it is, if it is a study of this
    recording with these options. With ``lines``, the recording is read again to write its lines.

    Args:
        reader: the opened model.
        recording: the recording and its name.
        run: the opened run folder.
        options: keyword arguments of ``Reader.read``.
        threads: number of inference threads the user asked for; goes into ``timing.json``.
        lines: where to write JSON lines, or None.
        resumable: keep a journal, from which an interrupted run can go on.

    Raises:
        OutputError: the folder holds another study, or cannot be written.
        Interrupted: the user pressed Ctrl-C, or SIGTERM came (``Terminated``), and the run can be resumed.
        KeyboardInterrupt: the same, and nothing is left to resume from.
    """
    from capsule_edge.runtime.results import write_study

    if run.finished is not None:
        if not reader.has_read(run.finished, recording.path, **options):
            raise other_study(run.folder, anonymous=recording.anonymous)
        if lines is None:
            return _earlier_outcome(recording, run.finished)
    if lines is not None:
        options = {**options, "on_frame": lines.frame, "on_event": lines.event}
    started = time.perf_counter()
    with _resumable(run), watch_pipe(_RESUME_HINT), _progress_bar(recording.title) as progress:
        journal = run.journal if resumable else None
        study = reader.read(recording.path, progress=progress, journal=journal, **options)
        timing = _timing(reader, study, recording, threads, time.perf_counter() - started)
        timing["resumed_frames"] = run.journal.resumed
        write_study(study, run.folder, timing=timing, colours=study.colours)
        run.journal.discard()
    return Outcome(recording, 0 if study.ledger.whole else INCOMPLETE, study)


def other_study(folder: Path, *, anonymous: bool = False) -> OutputError:
    """Return the error for a folder whose study is not the one that was asked for."""
    names = ", or one that names the recording" if anonymous else ""
    return OutputError(
        f"{folder} holds a whole study of another recording, model, version or options{names}",
        hint="replace it with --overwrite, or choose another --out",
    )


def _earlier_outcome(recording: NamedRecording, study: dict[str, Any]) -> Outcome:
    ledger = study["ledger"]
    incomplete = any(ledger[name] for name in ("corrupt", "missing", "unread", "truncated"))
    return Outcome(recording, INCOMPLETE if incomplete else 0, earlier=study)


@contextmanager
def _resumable(run: Run) -> Iterator[None]:
    """After Ctrl-C, SIGTERM or a full disk, tell how to resume, if the journal holds anything to resume from."""
    try:
        yield
    except KeyboardInterrupt as error:
        if not run.journal.is_there:
            raise
        raise as_interrupted(
            error, f"the frames read so far are kept in {run.folder}", hint=_RESUME_HINT
        ) from None
    except OutputError as error:
        if not run.journal.is_there:
            raise
        raise OutputError(error.message, hint=f"{error.hint}; {_RESUME_HINT}") from error


def _timing(
    reader: Reader, study: Study, recording: NamedRecording, threads: int, seconds: float
) -> dict[str, Any]:
    """Return the content of ``timing.json``: everything that may differ from run to run."""
    from capsule_edge.runtime.inference import BACKENDS
    from capsule_edge.runtime.pipeline import count_cores

    engine = BACKENDS[study.backend].needs.replace("_", "-")
    return {
        "recording": study.source.sha256 if recording.anonymous else str(recording.path.absolute()),
        "model": study.model_sha256 if recording.anonymous else str(reader.model_path.absolute()),
        "read_s": round(seconds, 3),
        "frames_per_s": round(study.ledger.classified / seconds, 1),
        "threads": threads,
        "workers": reader.plan.workers,
        "batch": reader.plan.batch,
        "machine": {
            "system": platform.platform(),
            "processor": platform.machine(),
            "cpus": os.cpu_count(),
            "cores": count_cores(),
        },
        "versions": {
            "python": platform.python_version(),
            **{name: _installed(name) for name in ("av", "numpy", engine, "opencv-python-headless")},
        },
    }


def _installed(package: str) -> str | None:
    """Return a package's version; None in a frozen application, or where a system names the package otherwise."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


@contextmanager
def _progress_bar(name: str) -> Iterator[Callable[[int, int], None] | None]:
    """Show frames done, frames per second and time left on stderr. Yields None where stderr is no terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text("" if task.speed is None else f"{task.speed:,.0f} frames/s")

    columns = (escape(name), BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(name, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
