"""``capsule-edge run``: reads recordings and leaves the files of a study for each."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from capsule_edge.runtime.errors import Interrupted, OutputError

from ._demo import run_demo
from ._evaluation import NO_CERTIFICATE
from ._lines import begin_lines, check_options, live_address, read_live, read_stdin, watch_pipe
from ._options import json_option, read_clock
from ._outcomes import Outcome, failure, print_json, tell_outcome, worst_code

if TYPE_CHECKING:
    from capsule_edge.runtime import Reader, Study
    from capsule_edge.runtime.results import Run
    from capsule_edge.runtime.streaming import Lines

_NOT_WHOLE = 3
_DEMO_FOLDER = "capsule-edge-demo"
_GO_ON = "the same command with --resume goes on"


@click.command(
    epilog="\b\nExamples:\n  capsule-edge run exam.mp4\n  capsule-edge run a.mp4 b.mkv --out results\n"
    "  ffmpeg -i exam.mp4 -f mjpeg - | capsule-edge run - --stdin mjpeg --jsonl\n"
    "  capsule-edge run --demo"
)
@click.argument("videos", metavar="VIDEO...", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--model",
    type=click.Path(path_type=Path),
    help="Model file, or standard or small: those installed.  [default: standard]",
)
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
@click.option("--capture-fps", type=float, help="Frames a second at which the capsule recorded.")
@click.option(
    "--start",
    "start_s",
    callback=read_clock,
    metavar="TIME",
    help="Read from there on: seconds, or 00:41:10 as players show it.",
)
@click.option("--end", "end_s", callback=read_clock, metavar="TIME", help="Read up to before this time.")
@click.option("--every", type=int, default=1, show_default=True, metavar="N", help="Read every N-th frame.")
@click.option(
    "--landmark",
    "landmarks",
    multiple=True,
    metavar="NAME=TIME",
    help="First picture of stomach, small-bowel or colon, or the end, as small-bowel=00:41:10; repeatable.",
)
@click.option(
    "--allow-saturation",
    is_flag=True,
    help="Read with a model whose 8-bit sums saturate on this CPU; see doctor.",
)
@click.option(
    "--gate/--no-gate",
    "gate",
    default=False,
    help="Let near-identical frames take the answer of the one before.  [default: no-gate]",
)
@click.option("--overwrite", is_flag=True, help="Replace the results of an earlier run.")
@click.option("--resume", is_flag=True, help="Go on with an interrupted run; what is read whole stays.")
@json_option
@click.option("--jsonl", is_flag=True, help="A JSON line for each frame and event on stdout, as they come.")
@click.option(
    "--stdin", "feed", metavar="KIND", help="What VIDEO - brings: mjpeg, or raw:WIDTHxHEIGHT (RGB)."
)
@click.option(
    "--patience",
    type=click.FloatRange(0),
    default=60.0,
    show_default=True,
    metavar="S",
    help="How long a lost RTSP or HTTP source is tried again.",
)
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
    allow_saturation: bool,
    gate: bool,
    overwrite: bool,
    resume: bool,
    as_json: bool,
    jsonl: bool,
    feed: str | None,
    patience: float,
    demo: bool,
    landmarks: tuple[str, ...],
    **options: Any,
) -> None:
    """Read recordings: every frame is accounted for, findings become events with times.

    Exit code 0 when all was read whole, 3 when frames are corrupt or missing or the file is cut, 1 when a
    recording cannot be read, 130 when interrupted. Of several recordings all are tried, and the code is that of
    the first that failed, else 3 where one was not whole. For research, not a medical device.
    """
    if bool(videos) == demo:
        raise click.UsageError("--demo makes its own recording" if demo else "no VIDEO was given", context)
    if demo and (resume or jsonl):
        raise click.UsageError("--demo is read whole, without --resume and --jsonl", context)
    check_options(videos, jsonl=jsonl, as_json=as_json, feed=feed, options=context.params)
    from capsule_edge.runtime.events import parse_landmarks
    from capsule_edge.runtime.preprocessing import THRESHOLD
    from capsule_edge.runtime.reader import Reader
    from capsule_edge.runtime.results import open_run

    options["gate"] = THRESHOLD if gate else None
    # "." and ".." have no name for the study and its folder to bear.
    videos = tuple(video.resolve() if video.name in ("", "..") else video for video in videos)
    options["landmarks"] = parse_landmarks(landmarks, recordings=len(videos))
    folders = [out or Path(_DEMO_FOLDER)] if demo else _folders(videos, out)
    with Reader.open(
        model,
        backend=backend,
        threads=threads,
        allow_saturation=allow_saturation,
    ) as reader:
        if reader.spec.precision == "int8" and not reader.spec.certificates:
            click.echo(f"warning: {reader.model_path.name} has no certificate ({NO_CERTIFICATE})", err=True)
        if demo:

            def read(recording: Path, run: Run) -> Outcome:
                return _read(reader, recording, run, threads, options, resumable=False)

            context.exit(run_demo(reader, folders[0], read, overwrite=overwrite, as_json=as_json))
        if feed is not None:
            context.exit(read_stdin(reader, feed, options["capture_fps"]))
        if videos and (address := live_address(videos[0])) is not None:
            context.exit(read_live(reader, address, options["capture_fps"], patience))
        outcomes = []
        for video, folder in zip(videos, folders, strict=True):
            lines = begin_lines(reader, str(video)) if jsonl else None
            try:
                with open_run(folder, overwrite=overwrite, resume=resume) as run:
                    outcomes.append(_read(reader, video, run, threads, options, lines))
            except (Interrupted, BrokenPipeError):
                raise
            except Exception as error:
                if len(videos) == 1 and lines is None:
                    raise
                if context.find_root().params.get("debug"):
                    traceback.print_exc()
                outcomes.append(failure(error, video, folder))
            tell_outcome(outcomes[-1], lines, as_json)
    worst = worst_code(outcomes)
    if as_json:
        print_json(outcomes, worst)
    context.exit(worst)


def _folders(videos: Sequence[Path], out: Path | None) -> list[Path]:
    """Where each recording's results go. Raises ``UsageError`` when two would go to the same folder."""
    from capsule_edge.runtime.errors import UsageError
    from capsule_edge.runtime.recording import study_name

    if out is not None and len(videos) == 1:
        return [out]
    names = [study_name(video) for video in videos]
    folders = [Path(f"{name}.capsule-edge") if out is None else out / name for name in names]
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


def _read(
    reader: Reader,
    video: Path,
    run: Run,
    threads: int,
    options: dict[str, Any],
    lines: Lines | None = None,
    *,
    resumable: bool = True,
) -> Outcome:
    from capsule_edge.runtime.results import write_study

    if run.finished is not None:
        if not reader.has_read(run.finished, video, **options):
            raise OutputError(
                f"{run.folder} holds a whole study of another recording, model, version or options",
                hint="start over with --overwrite, or choose another --out",
            )
        if lines is None:
            whole = _is_whole(run.finished["ledger"])
            return Outcome(video, run.folder, 0 if whole else _NOT_WHOLE, earlier=run.finished)
    started = time.perf_counter()
    if lines is not None:
        options = options | {"on_frame": lines.frame, "on_event": lines.event}
    with _interruptible(run), watch_pipe(_GO_ON), _progress(video.name) as progress:
        study = reader.read(video, progress=progress, journal=run.journal if resumable else None, **options)
        seconds = time.perf_counter() - started
        timing = _timing(reader, study, video, threads, seconds) | {"resumed_frames": run.journal.resumed}
        write_study(study, run.folder, timing=timing, colours=study.colours)
        run.journal.discard()
    return Outcome(video, run.folder, 0 if study.ledger.whole else _NOT_WHOLE, study)


def _is_whole(ledger: dict[str, Any]) -> bool:
    return not (ledger["corrupt"] or ledger["missing"] or ledger["unread"] or ledger["truncated"])


@contextmanager
def _interruptible(run: Run) -> Iterator[None]:
    """Say how to go on after Ctrl-C and a full disk, where there is something to go on from."""
    try:
        yield
    except KeyboardInterrupt:
        if not run.journal.is_there:
            raise
        raise Interrupted(f"interrupted, what was answered is kept in {run.folder}", hint=_GO_ON) from None
    except OutputError as error:
        if not run.journal.is_there:
            raise
        raise OutputError(error.message, hint=f"{error.hint}; {_GO_ON}") from error


def _timing(reader: Reader, study: Study, video: Path, threads: int, seconds: float) -> dict[str, Any]:
    import os
    import platform
    from importlib.metadata import PackageNotFoundError, version

    from capsule_edge.runtime.inference import BACKENDS

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
        "workers": reader.plan.workers,
        "batch": reader.plan.batch,
        "machine": {"system": platform.platform(), "processor": platform.machine(), "cpus": os.cpu_count()},
        "versions": {
            "python": platform.python_version(),
            **{name: installed(name) for name in ("av", "numpy", engine, "opencv-python-headless")},
        },
    }


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
