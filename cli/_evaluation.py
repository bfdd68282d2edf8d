"""What ``evaluate`` and ``compare`` share: options, finding the data, progress and warnings on stderr."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from capsule_edge.runtime.errors import UsageError

__all__ = [
    "NO_CERTIFICATE",
    "data_folder",
    "evaluation_options",
    "progress",
    "recordings_option",
    "warn_left_out",
    "warn_of_overlap",
]

if TYPE_CHECKING:
    from capsule_edge.evaluation.datasets import Dataset

Callback = Callable[..., Any]
NO_CERTIFICATE = "nothing proves that this file answers as the model it was made from"
_VARIABLE = "CAPSULE_EDGE_DATA"


def data_folder(given: Path | None) -> Path:
    """``--data``, else ``capsule-vision`` below ``CAPSULE_EDGE_DATA``. Raises ``UsageError`` for neither."""
    if given is not None:
        return given
    root = os.environ.get(_VARIABLE)
    if not root:
        raise UsageError("no data set was given", hint=f"use --data DIR or set {_VARIABLE}")
    return Path(root) / "capsule-vision"


def evaluation_options(command: Callback) -> Callback:
    """What ``evaluate`` and ``compare`` have in common: the data, its split, and the bootstrap."""
    for option in (
        click.option(
            "--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Of the bootstrap."
        ),
        click.option("--resamples", type=click.IntRange(0), default=1000, show_default=True,
                     help="Of the bootstrap over videos; 0 is none."),
        click.option("--threads", default=0, show_default=True, help="Threads of the engine, 0 is its own choice."),
        click.option("--split", help="Rows of labels.csv to use; 'all' is every row.  [default: val, else all]"),
        click.option("--data", type=click.Path(path_type=Path), help="Folder with labels.csv or class folders."),
    ):  # fmt: skip
        command = option(command)
    return command


recordings_option = click.option(
    "--recording",
    "recordings",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Compare the events found in this recording too; repeatable.",
)


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[int], None] | None]:
    """A bar on stderr where that is a terminal; yields what to call with frames done, or None."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.advance(task, done)


def warn_left_out(dataset: Dataset, skipped: Sequence[str]) -> None:
    """Names on stderr the frames that are not measured: claimed by two labels, or not readable."""
    for file in dataset.doubtful:
        click.echo(f"warning: {file.name} is listed under two labels and is left out", err=True)
    for name in skipped:
        click.echo(f"warning: {name} cannot be read and is left out", err=True)


def warn_of_overlap(overlap: Mapping[str, int] | None, frames: int) -> None:
    """Says on stderr where frames are of videos that the model was trained on."""
    if overlap is not None and overlap["frames"]:
        from capsule_edge.evaluation.datasets import describe_overlap

        click.echo(f"warning: {describe_overlap(overlap, frames)}", err=True)
