"""``run --jsonl``: print JSON lines while frames are read, from recordings, stdin or network sources."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from capsule_edge.runtime.errors import Interrupted, Terminated, UsageError
from capsule_edge.runtime.termination import TerminationSignal, as_interrupted

from ._outcomes import INCOMPLETE

if TYPE_CHECKING:
    from capsule_edge.runtime import Reader
    from capsule_edge.runtime.streaming import Feed, Lines, Live

__all__ = ["STDIN", "begin_lines", "check_sources", "live_address", "read_live", "read_stdin", "watch_pipe"]

STDIN = Path("-")
# Options that a stream cannot have. They need a known length, a result folder, or a position to continue from.
_FOR_FILES_ONLY = {
    "out": "--out", "resume": "--resume", "overwrite": "--overwrite", "start_s": "--start", "end_s": "--end",
    "landmarks": "--landmark", "gate": "--gate",
}  # fmt: skip


def check_sources(videos: Sequence[Path], options: Mapping[str, Any]) -> None:
    """Check that the sources and the options of ``run`` go together.

    Args:
        videos: recordings, ``STDIN``, or addresses of network sources.
        options: the parameters of ``run`` by name.

    Raises:
        UsageError: they do not.
    """
    feed = options["feed"]
    if options["jsonl"] and options["as_json"]:
        raise UsageError("--jsonl prints lines and --json prints one document", hint="give one of them")
    live = [address for video in videos if (address := live_address(video)) is not None]
    if live and feed is None:
        _check_stream(videos, live[0], options)
        return
    if STDIN not in videos:
        if feed is not None:
            raise UsageError(
                "--stdin states the format of frames on stdin, but no VIDEO is -", hint="give - as VIDEO"
            )
        return
    if feed is None:
        raise UsageError("stdin (-) needs --stdin", hint="--stdin mjpeg, or --stdin raw:336x336")
    _check_stream(videos, "stdin (-)", options)


def _check_stream(videos: Sequence[Path], name: str, options: Mapping[str, Any]) -> None:
    """Refuse a second recording beside a stream, a stream without ``--jsonl``, and options that need a file."""
    if len(videos) > 1:
        raise UsageError(
            f"{name} is read alone", hint="read the other recordings with a command of their own"
        )
    if not options["jsonl"]:
        raise UsageError(f"{name} gives JSON lines, not result files", hint="add --jsonl")
    given = [option for key, option in _FOR_FILES_ONLY.items() if options.get(key)]
    if options.get("every", 1) != 1:
        given.append("--every")
    if options.get("stream") is not None:
        given.append("--stream")
    if given:
        raise UsageError(f"{given[0]} is for recordings, not for {name}", hint=f"leave {given[0]} out")


def begin_lines(reader: Reader, recording: str) -> Lines:
    """Return the line writer of one recording, with the ``start`` line already printed."""
    from capsule_edge.runtime.streaming import Lines

    lines = Lines(sys.stdout, recording, reader.spec)
    lines.start(model_sha256=reader.model_sha256, backend=reader.backend_name)
    return lines


def read_stdin(reader: Reader, feed: str, capture_fps: float | None) -> int:
    """Read the frames on stdin, in the format ``feed``, print their lines and return the exit code."""
    from capsule_edge.runtime.streaming import parse_feed

    kind = parse_feed(feed)
    if sys.stdin.isatty():
        raise UsageError("stdin is a terminal, not frames", hint="pipe frames into it")
    return _read_feed(reader, kind, "-", capture_fps)


def read_live(
    reader: Reader, address: str, capture_fps: float | None, patience_s: float, *, anonymous: bool = False
) -> int:
    """Read a network source until it ends or the user stops it, print its lines and return the exit code."""
    from capsule_edge.runtime.streaming import Live

    feed = Live(address, patience_s=patience_s)
    with _stopped_by_signals(feed):
        return _read_feed(reader, feed, "network source" if anonymous else feed.shown, capture_fps)


def live_address(path: Path) -> str | None:
    """Return the address of a network source, or None if ``path`` is not one."""
    if ":" not in str(path):  # spares loading the streaming room for ordinary files
        return None
    from capsule_edge.runtime.streaming import live_address

    return live_address(path)


@contextmanager
def watch_pipe(hint: str) -> Iterator[None]:
    """Report on stderr that the reader of stdout has gone, with ``hint``."""
    try:
        yield
    except BrokenPipeError:
        click.echo(f"error: nobody reads the lines any more ({hint})", err=True)
        raise


@contextmanager
def _stopped_by_signals(feed: Live) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end a camera's stream: the frames so far are answered and the lines completed.

    A second signal interrupts at once.

    Raises:
        Interrupted: the source was ended before a frame came; ``Terminated`` where SIGTERM ended it.
    """
    signals: list[int] = []

    def stop(number: int, _frame: FrameType | None) -> None:
        signals.append(number)
        if feed.stopped:
            raise TerminationSignal if number == signal.SIGTERM else KeyboardInterrupt
        feed.stop()

    earlier = {}
    # Only the main thread may set handlers. A signal that is ignored stays ignored: a shell ignores SIGINT
    # for commands it runs in the background.
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:
                earlier[number] = signal.signal(number, stop)
    try:
        yield
    except Interrupted as error:
        if signals != [signal.SIGTERM] or isinstance(error, Terminated):
            raise
        raise Terminated(error.message, hint=error.hint) from None
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


def _read_feed(reader: Reader, kind: Feed, name: str, capture_fps: float | None) -> int:
    from capsule_edge.runtime.streaming import read_pipe

    lines = begin_lines(reader, name)
    with _interruptible(), watch_pipe("frames still to come are lost"):
        ledger = read_pipe(
            reader,
            sys.stdin.buffer,
            kind,
            capture_fps=capture_fps,
            on_frame=lines.frame,
            on_event=lines.event,
        )
        exit_code = 0 if ledger.whole else INCOMPLETE
        lines.end(ledger, exit_code=exit_code, folder=None)
    return exit_code


@contextmanager
def _interruptible() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt as error:
        raise as_interrupted(error, hint="a stream cannot be resumed") from None
