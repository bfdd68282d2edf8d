"""Options, data, progress and warnings that the commands on labelled frames share. All but results go to stderr."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from capsule_edge.runtime.errors import UsageError

from ._options import labels_option
from ._printing import console, number, table

__all__ = [
    "NO_CERTIFICATE",
    "absent_classes",
    "count_splits",
    "data_folder",
    "evaluation_options",
    "print_splits",
    "progress",
    "recordings_option",
    "warn_left_out",
    "warn_of_overlap",
    "warn_of_remarks",
]

if TYPE_CHECKING:
    from capsule_edge.evaluation.datasets import Dataset, ListingRemark, Sample

Callback = Callable[..., Any]
NO_CERTIFICATE = "nothing proves that this file gives the answers of the model it was made from"
_VARIABLE = "CAPSULE_EDGE_DATA"


def data_folder(given: Path | None) -> Path:
    """Return ``--data``, or else ``capsule-vision`` in the folder that ``CAPSULE_EDGE_DATA`` names.

    Raises:
        UsageError: neither is given.
    """
    if given is not None:
        return given
    root = os.environ.get(_VARIABLE)
    if not root:
        raise UsageError("no data set was given", hint=f"use --data DIR or set {_VARIABLE}")
    return Path(root) / "capsule-vision"


def evaluation_options(command: Callback) -> Callback:
    """Add the options that ``evaluate`` and ``compare`` share: data, split, label map, threads and bootstrap."""
    for option in (
        click.option(
            "--seed",
            type=click.IntRange(0, 2**32 - 1),
            default=0,
            show_default=True,
            help="Seed of the bootstrap.",
        ),
        click.option(
            "--resamples",
            type=click.IntRange(0),
            default=1000,
            show_default=True,
            help="Number of bootstrap samples, drawn over videos; 0 computes no intervals.",
        ),
        click.option(
            "--threads",
            default=0,
            show_default=True,
            help="Number of threads of the inference engine; 0 lets the engine choose.",
        ),
        labels_option,
        click.option(
            "--split", help="Split to use; 'all' takes every row.  [default: val if there is one, else all]"
        ),
        click.option(
            "--data",
            type=click.Path(path_type=Path),
            help=f"Data set: a folder with labels.csv or class folders.  [default: capsule-vision in ${_VARIABLE}]",
        ),
    ):
        command = option(command)
    return command


recordings_option = click.option(
    "--recording",
    "recordings",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Also compare the events that both models find in this recording. Can be repeated.",
)


@contextmanager
def progress(activity: str, total: int) -> Iterator[Callable[[int], None] | None]:
    """Show a progress bar on stderr. Yields a function to call with the number of frames just done.

    Yields None where stderr is no terminal.
    """
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(activity), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(activity, total=total)
        yield lambda done: bar.advance(task, done)


def warn_of_remarks(remarks: Sequence[ListingRemark]) -> None:
    """Report what the reader of a data set found and did about it."""
    for remark in remarks:
        click.echo(f"warning: {remark.message}", err=True)


def warn_left_out(dataset: Dataset, skipped: Sequence[str]) -> None:
    """Report the reader's remarks, and each frame left out: it has two labels, or cannot be read (``skipped``)."""
    warn_of_remarks(dataset.remarks)
    for file in dataset.doubtful:
        click.echo(f"warning: {file.name} is listed under two labels and is left out", err=True)
    for name in skipped:
        click.echo(f"warning: {name} cannot be read and is left out", err=True)


def warn_of_overlap(overlap: Mapping[str, int] | None, frames: int) -> None:
    """Warn if some of the ``frames`` measured come from videos that the model was trained on."""
    if overlap is not None and overlap["frames"]:
        from capsule_edge.evaluation.datasets import describe_overlap

        click.echo(f"warning: {describe_overlap(overlap, frames)}", err=True)


def count_splits(samples: Sequence[Sample]) -> dict[str, dict[str, Any]]:
    """Return, for each split, the number of files, of videos, and of frames of each class."""
    labels = sorted({sample.label for sample in samples})
    counts = {}
    for name in sorted({sample.split or "" for sample in samples}):
        members = [sample for sample in samples if (sample.split or "") == name]
        counts[name] = {
            "frames": len({sample.file for sample in members}),
            "videos": len({sample.video_id for sample in members if sample.video_id}),
            "classes": {label: sum(sample.label == label for sample in members) for label in labels},
        }
    return counts


def absent_classes(splits: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return, for each split of ``count_splits`` that lacks a class, the classes without a frame in it."""
    absent = {
        name: [key for key, count in split["classes"].items() if not count] for name, split in splits.items()
    }
    return {name: keys for name, keys in absent.items() if keys}


def print_splits(splits: Mapping[str, Mapping[str, Any]]) -> None:
    """Print ``count_splits`` as a table with a column for each split."""
    rows = table("class", *splits)
    for label in next(iter(splits.values()))["classes"]:
        rows.add_row(label, *(number(split["classes"][label]) for split in splits.values()))
    rows.add_row("videos", *(number(split["videos"]) for split in splits.values()))
    console().print(rows)
