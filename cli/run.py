"""``capsule-edge run``: read recordings and write a study of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from capsule_edge.runtime.errors import Interrupted

from ._demo import run_demo
from ._evaluation import NO_CERTIFICATE
from ._folders import expand_folders
from ._lines import begin_lines, check_sources, live_address, read_live, read_stdin
from ._names import NamedRecording, NameKeeper, name_by_file, name_by_hash
from ._options import HELP_OPTIONS, json_option, read_clock
from ._outcomes import Outcome, failed, print_json, report_outcome, worst_code
from ._reading import read_recording

if TYPE_CHECKING:
    from capsule_edge.runtime import Reader

_DEMO_FOLDER = "capsule-edge-demo"


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """The options of ``run``, as click parsed them."""

    model: Path | None
    out: Path | None
    backend: str
    threads: int
    capture_fps: float | None
    start_s: float | None
    end_s: float | None
    every: int
    stream: int | None
    landmarks: tuple[str, ...]
    anonymous: bool
    allow_saturation: bool
    gate: bool
    overwrite: bool
    resume: bool
    as_json: bool
    jsonl: bool
    feed: str | None
    patience: float
    demo: bool

    def for_reader(self, *, recordings: int) -> dict[str, Any]:
        """Return the keyword arguments of ``Reader.read``. Raises ``UsageError`` for impossible landmarks."""
        from capsule_edge.runtime.events import parse_landmarks
        from capsule_edge.runtime.preprocessing import THRESHOLD

        return {
            "capture_fps": self.capture_fps,
            "start_s": self.start_s,
            "end_s": self.end_s,
            "every": self.every,
            "gate": THRESHOLD if self.gate else None,
            "landmarks": parse_landmarks(self.landmarks, recordings=recordings),
            "stream": self.stream,
            "anonymous": self.anonymous,
        }


@click.command(
    context_settings=HELP_OPTIONS,
    epilog="\b\nExamples:\n  capsule-edge run exam.mp4\n  capsule-edge run a.mp4 b.mkv --out results\n"
    "  ffmpeg -i exam.mp4 -f mjpeg - | capsule-edge run - --stdin mjpeg --jsonl\n"
    "  capsule-edge run --demo",
)
@click.argument("videos", metavar="VIDEO...", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--model",
    type=click.Path(path_type=Path),
    help="Model file, or the name of an installed model: standard or small.  [default: standard]",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder for the results. With several recordings, each gets a folder of its own inside it."
    "  [default: <name>.capsule-edge]",
)
@click.option("--backend", default="onnxruntime", show_default=True, help="Inference engine.")
@click.option(
    "--threads",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Number of processor cores that inference may use; 0 uses all.",
)
@click.option(
    "--capture-fps",
    type=float,
    help="Frames per second at which the capsule recorded, if the video plays faster.",
)
@click.option(
    "--start",
    "start_s",
    callback=read_clock,
    metavar="TIME",
    help="Start reading at this time: seconds, or hh:mm:ss as players show it (00:41:10).",
)
@click.option(
    "--end", "end_s", callback=read_clock, metavar="TIME", help="Stop reading at this time (same form)."
)
@click.option("--every", type=int, default=1, show_default=True, metavar="N", help="Read every N-th frame.")
@click.option(
    "--stream",
    type=click.IntRange(0),
    metavar="N",
    help="Number of the video stream to read, as ffprobe shows it.  [default: the stream with most pictures]",
)
@click.option(
    "--landmark",
    "landmarks",
    multiple=True,
    metavar="NAME=TIME",
    help="First frame of a segment (NAME is stomach, small-bowel or colon) or end of the examination (NAME is end), "
    "for example small-bowel=00:41:10. Can be repeated.",
)
@click.option(
    "--anonymous",
    is_flag=True,
    help="Leave paths and file names out of all results, lines and messages; a recording is named by its SHA-256.",
)
@click.option(
    "--allow-saturation",
    is_flag=True,
    help='Accept a model whose 8-bit sums saturate on this CPU, so that answers may be wrong (see "doctor").',
)
@click.option(
    "--gate/--no-gate",
    "gate",
    default=False,
    help="Do not run the model on a frame that is nearly identical to the last answered one; it takes its answer."
    "  [default: no-gate]",
)
@click.option("--overwrite", is_flag=True, help="Replace the results of an earlier run.")
@click.option("--resume", is_flag=True, help="Go on with an interrupted run; keep recordings already read.")
@json_option
@click.option(
    "--jsonl",
    is_flag=True,
    help="Print a JSON line on stdout for each frame and event, as soon as it is known.",
)
@click.option(
    "--stdin",
    "feed",
    metavar="KIND",
    help="Format of the frames on stdin when VIDEO is -: mjpeg, or raw:WIDTHxHEIGHT (RGB).",
)
@click.option(
    "--patience",
    type=click.FloatRange(0),
    default=60.0,
    show_default=True,
    metavar="S",
    help="Seconds to keep reconnecting to an RTSP or HTTP source that was lost.",
)
@click.option("--demo", is_flag=True, help="Render a phantom recording with known lesions and read it.")
@click.pass_context
def command(context: click.Context, /, videos: tuple[Path, ...], **given: Any) -> None:
    """Read recordings. Every frame is accounted for, and findings become events with times.

    VIDEO is a video file, a folder of images, a multi-page TIFF, a DICOM file or a DICOMDIR folder; or - for
    stdin; or the address of an RTSP or HTTP source. Of a folder that holds recordings, each is read.

    Exit codes: 0 all recordings are complete; 1 a recording could not be read; 2 wrong usage; 3 a recording
    was read but is incomplete (frames are corrupt or missing, or the file is cut); 130 interrupted; 143
    ended by SIGTERM. With several recordings, all are read. The exit code is the first failure's, or 3 if a
    recording was incomplete.

    For research, not a medical device.
    """
    options = RunOptions(**given)
    if bool(videos) == options.demo:
        raise click.UsageError(
            "--demo makes its own recording, leave VIDEO out" if videos else "no VIDEO was given", context
        )
    if options.demo and (options.resume or options.jsonl):
        raise click.UsageError("--demo cannot be combined with --resume or --jsonl", context)
    # "." and ".." cannot name a study and its folder.
    videos = tuple(video.resolve() if video.name in ("", "..") else video for video in videos)
    private = {options.out: "the results folder", options.model: "the model file"}
    keeper = NameKeeper(videos, private, anonymous=options.anonymous)
    with keeper.watch():
        code = _run(context, videos, options, keeper)
    context.exit(code)


def _run(context: click.Context, given: Sequence[Path], options: RunOptions, keeper: NameKeeper) -> int:
    """Read what was asked for and return the exit code."""
    check_sources(given, context.params)
    videos = expand_folders(given, anonymous=options.anonymous)
    read_options = options.for_reader(recordings=len(videos))
    address = live_address(videos[0]) if videos else None
    named: list[NamedRecording] = []
    if not options.demo and options.feed is None and address is None:
        name = name_by_hash if options.anonymous else name_by_file
        named = name(videos, options.out, single=tuple(given) == videos)
    with _open_reader(options) as reader:
        if options.demo:
            return run_demo(reader, options.out or Path(_DEMO_FOLDER), read_options, options)
        if options.feed is not None:
            return read_stdin(reader, options.feed, options.capture_fps)
        if address is not None:
            return read_live(
                reader, address, options.capture_fps, options.patience, anonymous=options.anonymous
            )
        debug = bool(context.find_root().params.get("debug"))
        return _read_all(reader, named, read_options, options, keeper, debug=debug)


def _open_reader(options: RunOptions) -> Reader:
    from capsule_edge.runtime.reader import Reader

    reader = Reader.open(
        options.model,
        backend=options.backend,
        threads=options.threads,
        allow_saturation=options.allow_saturation,
    )
    if reader.spec.precision == "int8" and not reader.spec.certificates:
        name = "the model" if options.anonymous else reader.model_path.name
        click.echo(f"warning: {name} has no certificate: {NO_CERTIFICATE}", err=True)
    return reader


def _read_all(
    reader: Reader,
    recordings: Sequence[NamedRecording],
    read_options: dict[str, Any],
    options: RunOptions,
    keeper: NameKeeper,
    *,
    debug: bool,
) -> int:
    """Read each recording into its folder, report each, and return the exit code."""
    from capsule_edge.runtime.results import open_run

    outcomes: list[Outcome] = []
    for each in recordings:
        lines = begin_lines(reader, each.shown) if options.jsonl else None
        try:
            if each.error is not None:
                raise each.error
            with open_run(each.folder, overwrite=options.overwrite, resume=options.resume) as run:
                outcome = read_recording(
                    reader, each, run, read_options, threads=options.threads, lines=lines
                )
        except (Interrupted, BrokenPipeError):
            raise
        except Exception as error:
            if len(recordings) == 1 and lines is None:
                raise
            if debug:
                keeper.print_traceback(error)
            outcome = failed(keeper.clean(error), each)
        outcomes.append(outcome)
        report_outcome(outcome, lines, as_json=options.as_json)
    code = worst_code(outcomes)
    if options.as_json:
        print_json(outcomes, code)
    return code
