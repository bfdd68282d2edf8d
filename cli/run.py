"""``capsule-edge run``: reads recordings and leaves the files of a study for each."""

from __future__ import annotations

import json
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ._evaluation import NO_CERTIFICATE, console, number, table

if TYPE_CHECKING:
    from capsule_edge.runtime import Reader, Study
    from capsule_edge.runtime.phantom import Phantom

_NOT_WHOLE = 3
_DEMO_FOLDER = "capsule-edge-demo"


@dataclass(frozen=True)
class _Outcome:
    """What became of one recording."""

    recording: Path
    folder: Path
    exit_code: int
    study: Study | None = None
    error: dict[str, str] | None = None


@click.command(
    epilog="\b\nExamples:\n  capsule-edge run exam.mp4\n  capsule-edge run a.mp4 b.mkv --out results\n"
    "  capsule-edge run --demo"
)
@click.argument("videos", metavar="VIDEO...", nargs=-1, type=click.Path(path_type=Path))
@click.option("--model", type=click.Path(path_type=Path), help="Model file.  [default: the one installed]")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder of the results; of several recordings, each in its own below it."
    "  [default: <name>.capsule-edge]",
)
@click.option("--backend", default="onnxruntime", show_default=True, help="Inference engine.")
@click.option(
    "--threads",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Cores that inference may use, 0 is all.",
)
@click.option(
    "--no-autotune",
    is_flag=True,
    help="Do not fit workers and batch size to this machine; no answer depends on them.",
)
@click.option("--capture-fps", type=float, help="Frames a second at which the capsule recorded.")
@click.option(
    "--start", "start_s", type=float, metavar="S", help="Read from this second of the recording on."
)
@click.option("--end", "end_s", type=float, metavar="S", help="Read up to before this second.")
@click.option("--every", type=int, default=1, show_default=True, metavar="N", help="Read every N-th frame.")
@click.option(
    "--landmark",
    "landmarks",
    multiple=True,
    metavar="NAME=TIME",
    help="First picture of stomach, small-bowel or colon, or the end, as small-bowel=00:41:10; repeatable.",
)
@click.option("--overwrite", is_flag=True, help="Replace the results of an earlier run.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@click.option("--demo", is_flag=True, help="Make a phantom recording with known lesions and read that.")
@click.pass_context
def command(
    context: click.Context,
    /,
    videos: tuple[Path, ...],
    model: Path | None,
    out: Path | None,
    backend: str,
    threads: int,
    no_autotune: bool,
    overwrite: bool,
    as_json: bool,
    demo: bool,
    landmarks: tuple[str, ...],
    **options: Any,
) -> None:
    """Read recordings: every frame is accounted for, findings become events with times.

    Exit code 0 when all was read whole, 3 when frames are corrupt or missing or the file is cut, 1 when a
    recording cannot be read, 130 when interrupted; of several recordings the worst. For research, not a
    medical device.
    """
    if bool(videos) == demo:
        raise click.UsageError("--demo makes its own recording" if demo else "no VIDEO was given", context)
    from capsule_edge.runtime.landmarks import parse_landmarks
    from capsule_edge.runtime.reader import Reader

    options["landmarks"] = parse_landmarks(landmarks, recordings=len(videos))
    folders = [out or Path(_DEMO_FOLDER)] if demo else _folders(videos, out)
    with Reader.open(model, backend=backend, threads=threads, autotune=not no_autotune) as reader:
        if reader.spec.precision == "int8" and not reader.spec.certificates:
            click.echo(f"warning: {reader.model_path.name} has no certificate ({NO_CERTIFICATE})", err=True)
        if demo:
            context.exit(_demo(reader, folders[0], threads, overwrite, as_json, options))
        outcomes = []
        for video, folder in zip(videos, folders, strict=True):
            try:
                with _output(folder, overwrite=overwrite):
                    outcomes.append(_read(reader, video, folder, threads, options))
            except Exception as error:
                if len(videos) == 1:
                    raise
                if context.find_root().params.get("debug"):
                    traceback.print_exc()
                outcomes.append(_failure(error, video, folder))
            if not as_json:
                _print(outcomes[-1])
    # An error is worse than a recording that was read in part.
    worst = max(
        (outcome.exit_code for outcome in outcomes), key=lambda code: (code != 0) + (code not in (0, 3))
    )
    if as_json:
        _print_json(outcomes, worst)
    context.exit(worst)


def _folders(videos: Sequence[Path], out: Path | None) -> list[Path]:
    """Where each recording's results go. Raises ``UsageError`` when two would go to the same folder."""
    from capsule_edge.runtime.errors import UsageError

    if out is not None and len(videos) == 1:
        return [out]
    folders = [Path(f"{video.stem}.capsule-edge") if out is None else out / video.stem for video in videos]
    taken: dict[str, Path] = {}
    for video, folder in zip(videos, folders, strict=True):
        # Windows and macOS take names that differ in case as one.
        other = taken.setdefault(str(folder).casefold(), video)
        if other is not video:
            raise UsageError(
                f"{other} and {video} would both be written to {folder}",
                hint="read them one by one with --out",
            )
    return folders


@contextmanager
def _output(folder: Path, *, overwrite: bool) -> Iterator[Path]:
    """The folder made ready and held by this run; what was made for it goes again when the work in it fails."""
    from capsule_edge.runtime.commit import clear_leftovers
    from capsule_edge.runtime.locks import lock_folder
    from capsule_edge.runtime.outputs import FILES, prepare_folder

    made = []
    with suppress(OSError, ValueError):
        made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        with lock_folder(prepare_folder(folder, overwrite=overwrite)):
            # Once more: another run may just have ended here.
            prepare_folder(folder, overwrite=overwrite)
            clear_leftovers(folder, FILES)
            yield folder
    except BaseException:
        for path in made:
            with suppress(OSError):
                path.rmdir()
        raise


def _read(reader: Reader, video: Path, folder: Path, threads: int, options: dict[str, Any]) -> _Outcome:
    from capsule_edge.runtime.outputs import write_study

    started = time.perf_counter()
    with _progress(video.name) as progress:
        study = reader.read(video, progress=progress, **options)
    seconds = time.perf_counter() - started
    write_study(study, folder, timing=_timing(reader, study, video, threads, seconds), colours=study.colours)
    return _Outcome(video, folder, 0 if study.ledger.whole else _NOT_WHOLE, study)


def _timing(reader: Reader, study: Study, video: Path, threads: int, seconds: float) -> dict[str, Any]:
    import os
    import platform
    from importlib.metadata import PackageNotFoundError, version

    from capsule_edge.runtime.backends import BACKENDS

    engine = BACKENDS[study.backend].needs.replace("_", "-")

    def installed(name: str) -> str | None:
        try:
            return version(name)
        except PackageNotFoundError:  # a frozen application, or a system's own package of another name
            return None

    return {
        "recording": str(video.absolute()),
        "model": str(reader.model_path.absolute()),
        "read_s": round(seconds, 3),
        "frames_per_s": round(study.ledger.classified / seconds, 1),
        "threads": threads,
        "workers": reader.plan.workers(),
        "batch": reader.plan.batch(),
        "machine": {"system": platform.platform(), "processor": platform.machine(), "cpus": os.cpu_count()},
        "versions": {
            "python": platform.python_version(),
            **{name: installed(name) for name in ("av", "numpy", engine, "opencv-python-headless")},
        },
    }


def _failure(error: Exception, video: Path, folder: Path) -> _Outcome:
    """One of several recordings that failed does not stop the others."""
    from capsule_edge.runtime.errors import CapsuleEdgeError

    if isinstance(error, CapsuleEdgeError):
        found = {"code": error.code, "message": error.message, "hint": error.hint}
        return _Outcome(video, folder, error.exit_code, error=found)
    found = {"code": "internal", "message": f"{type(error).__name__}: {error}", "hint": ""}
    return _Outcome(video, folder, 1, error=found)


@contextmanager
def _progress(name: str) -> Iterator[Callable[[int, int], None] | None]:
    """A bar of frames, frames a second and time left on stderr, where that is a terminal."""
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


def _print_json(outcomes: Sequence[_Outcome], exit_code: int, **more: Any) -> None:
    from capsule_edge.runtime.outputs import study_document

    recordings: list[dict[str, Any]] = []
    for outcome in outcomes:
        entry: dict[str, Any] = {"recording": str(outcome.recording), "exit_code": outcome.exit_code}
        if outcome.study is None:
            entry["error"] = outcome.error
        else:
            entry |= {"out": str(outcome.folder), "study": study_document(outcome.study)}
        recordings.append(entry)
    document = {"recordings": recordings, "exit_code": exit_code, **more}
    click.echo(json.dumps(document, ensure_ascii=False, indent=1, allow_nan=False))


def _print(outcome: _Outcome) -> None:
    from capsule_edge.runtime.figures import clock
    from capsule_edge.runtime.ranking import FIRST, rank_events

    study = outcome.study
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


def _demo(
    reader: Reader, folder: Path, threads: int, overwrite: bool, as_json: bool, options: dict[str, Any]
) -> int:
    """Render, read and compare with what was planted."""
    import os

    from capsule_edge.runtime.errors import OutputError
    from capsule_edge.runtime.phantom import DEMO_SEED, Phantom, write_recording

    phantom = Phantom(DEMO_SEED)
    recording, earlier = folder / "phantom.mp4", folder / ".phantom.mp4.earlier"
    if recording.exists() and not overwrite:
        raise OutputError(f"{recording} is there already", hint="choose another --out, or pass --overwrite")
    with _output(folder, overwrite=overwrite):
        if recording.exists():
            os.replace(recording, earlier)
        try:
            click.echo(f"rendering {phantom.frames} frames of a phantom", err=True)
            write_recording(recording, phantom)
            outcome = _read(reader, recording, folder, threads, options)
        except BaseException:
            recording.unlink(missing_ok=True)
            if earlier.exists():
                os.replace(earlier, recording)
            raise
        earlier.unlink(missing_ok=True)
    found = _match(phantom, outcome.study)
    if as_json:
        _print_json([outcome], outcome.exit_code, planted=found)
    else:
        _print(outcome)
        _print_planted(found)
    return outcome.exit_code


def _match(phantom: Phantom, study: Study | None) -> list[dict[str, Any]]:
    """Each planted lesion with the event of its label that overlaps it most (IoU in time)."""
    matched = []
    for lesion in phantom.planted:
        best, event_id = 0.0, None
        for event in study.events if study else ():
            shared = min(lesion.end_s, event.end_s) - max(lesion.start_s, event.start_s)
            union = max(lesion.end_s, event.end_s) - min(lesion.start_s, event.start_s)
            if event.label == lesion.label and shared / union > best:
                best, event_id = shared / union, event.id
        matched.append(
            {
                "label": lesion.label,
                "start_s": lesion.start_s,
                "end_s": lesion.end_s,
                "event": event_id,
                "iou": round(best, 6),
            }
        )
    return matched


def _print_planted(found: Sequence[dict[str, Any]]) -> None:
    from capsule_edge.runtime.figures import clock

    rows = table("planted", "from", "to", "found as event", "overlap (IoU)")
    for entry in found:
        times = (clock(entry[name]) for name in ("start_s", "end_s"))
        rows.add_row(entry["label"], *times, number(entry["event"]), number(entry["iou"], 2))
    console().print(rows)
