"""``run --jsonl``: JSON lines on stdout while frames are read, from recordings or from stdin."""

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

from capsule_edge.runtime.errors import Interrupted, UsageError

if TYPE_CHECKING:
    from capsule_edge.runtime import Reader
    from capsule_edge.runtime.streaming import Feed, Lines, Live

__all__ = ["STDIN", "begin_lines", "check_options", "live_address", "read_live", "read_stdin", "watch_pipe"]

STDIN = Path("-")
# What a pipe has none of: files, a length, a place to go on from.
_NOT_OF_A_PIPE = {
    "out": "--out", "resume": "--resume", "overwrite": "--overwrite", "start_s": "--start", "end_s": "--end",
    "landmarks": "--landmark", "gate": "--gate",
}  # fmt: skip


def check_options(
    videos: Sequence[Path], *, jsonl: bool, as_json: bool, feed: str | None, options: Mapping[str, Any]
) -> None:
    """Raise ``UsageError`` for what does not go together."""
    if jsonl and as_json:
        raise UsageError("--jsonl streams lines and --json prints one document", hint="give one of them")
    live = [address for video in videos if (address := live_address(video)) is not None]
    if live and feed is None:
        _check_alone(videos, live[0], jsonl=jsonl, options=options)
        return
    if STDIN not in videos:
        if feed is not None:
            raise UsageError(
                "--stdin tells what comes on stdin, which is read as VIDEO -", hint="give - as VIDEO"
            )
        return
    if feed is None:
        raise UsageError("stdin (-) needs --stdin", hint="--stdin mjpeg, or --stdin raw:336x336")
    _check_alone(videos, "stdin (-)", jsonl=jsonl, options=options)


def _check_alone(videos: Sequence[Path], name: str, *, jsonl: bool, options: Mapping[str, Any]) -> None:
    """What has no end that is known is answered in lines, and has no files to go on from."""
    if len(videos) > 1:
        raise UsageError(f"{name} is read alone", hint="read the recordings in a run of their own")
    if not jsonl:
        raise UsageError(f"{name} is answered in lines only", hint="add --jsonl")
    given = [option for key, option in _NOT_OF_A_PIPE.items() if options.get(key)]
    if options.get("every", 1) != 1:
        given.append("--every")
    if given:
        raise UsageError(f"{given[0]} is for recordings, not for {name}", hint=f"leave {given[0]} out")


def begin_lines(reader: Reader, recording: str) -> Lines:
    """The lines of one recording, with their first."""
    from capsule_edge.runtime.streaming import Lines

    lines = Lines(sys.stdout, recording, reader.spec)
    lines.start(model_sha256=reader.model_sha256, backend=reader.backend_name)
    return lines


def read_stdin(reader: Reader, feed: str, capture_fps: float | None) -> int:
    """Answer the frames on stdin; returns the exit code."""
    from capsule_edge.runtime.streaming import parse_feed

    kind = parse_feed(feed)
    if sys.stdin.isatty():
        raise UsageError("stdin is a terminal, not frames", hint="pipe frames into it")
    return _read_feed(reader, kind, "-", capture_fps)


def read_live(reader: Reader, address: str, capture_fps: float | None, patience_s: float) -> int:
    """Answer the frames of a network camera or stream until it ends or is stopped; returns the exit code."""
    from capsule_edge.runtime.streaming import Live

    feed = Live(address, patience_s=patience_s)
    with _stopped_by_signals(feed):
        return _read_feed(reader, feed, feed.shown, capture_fps)


@contextmanager
def _stopped_by_signals(feed: Live) -> Iterator[None]:
    """Ctrl-C and SIGTERM are how a camera ends: what has come is answered, and the lines are completed.

    A second one interrupts.
    """

    def stop(_number: int, _frame: FrameType | None) -> None:
        if feed.stopped:
            raise KeyboardInterrupt
        feed.stop()

    earlier = {}
    # Elsewhere than in the main thread signals are somebody else's; one that is ignored (a shell does so for what it
    # runs in the background) stays so.
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:
                earlier[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


def _read_feed(reader: Reader, kind: Feed, name: str, capture_fps: float | None) -> int:
    from capsule_edge.runtime.streaming import read_pipe

    lines = begin_lines(reader, name)
    with _interruptible(), watch_pipe("what is still to come is lost"):
        ledger = read_pipe(
            reader,
            sys.stdin.buffer,
            kind,
            capture_fps=capture_fps,
            on_frame=lines.frame,
            on_event=lines.event,
        )
        exit_code = 0 if ledger.whole else 3
        lines.end(ledger, exit_code=exit_code, folder=None)
    return exit_code


def live_address(path: Path) -> str | None:
    """The address of a network source, where ``path`` is one; nothing heavy is loaded for what has no colon."""
    if ":" not in str(path):
        return None
    from capsule_edge.runtime.streaming import live_address

    return live_address(path)


@contextmanager
def _interruptible() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted("interrupted", hint="what comes only once cannot be gone on with") from None


@contextmanager
def watch_pipe(hint: str) -> Iterator[None]:
    """Say on stderr that nobody reads the lines any more, which stdout cannot."""
    try:
        yield
    except BrokenPipeError:
        click.echo(f"error: nobody reads the lines any more ({hint})", err=True)
        raise
