"""``capsule-edge split``: a data set parted by video, as a ``labels.csv`` that every command takes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from capsule_edge.runtime.errors import InputError, UsageError

from ._options import json_option
from ._printing import console, echo_json, number, table

if TYPE_CHECKING:
    from capsule_edge.evaluation.datasets import Sample


@click.command(
    epilog="\b\nExample:\n  capsule-edge split frames --folds 5 --hold-out 0 --out parted/labels.csv"
)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--folds", type=click.IntRange(2), help="Number of folds; the split of a frame is fold0, fold1..."
)
@click.option(
    "--hold-out", "held_out", type=click.IntRange(0), help="Call this fold val, and all else train."
)
@click.option("--among", help="Rows of this split alone, such as train.  [default: all]")
@click.option("--official", type=click.Choice(["published", "cleaned"]),
              help="Kvasir-Capsule's own splits, with their faults or without.")  # fmt: skip
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Of the folds.")
@click.option("--random-frames-leak", "leak", is_flag=True,
              help="Part frames, not videos: copies on both sides. For showing what a leak does.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The labels.csv to write.")
@click.option("--overwrite", is_flag=True, help="Replace a file that is there.")
@json_option
def command(
    folder: Path,
    folds: int | None,
    held_out: int | None,
    among: str | None,
    official: Literal["published", "cleaned"] | None,
    seed: int,
    leak: bool,
    out: Path,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Part DIR by video, stratified by label, and write it as a labels.csv beside or away from the frames.

    The folder of the file that is written is a data set for 'train', 'evaluate' and 'audit'. A file under two
    labels is left out. Where frames name no video there is no honest split, and the command refuses.
    """
    from capsule_edge.evaluation.datasets import list_samples, splits

    if (folds is None) == (official is None):
        raise UsageError("one of --folds and --official is needed", hint="for instance --folds 5")
    if official and (held_out is not None or among or leak):
        raise UsageError("--official goes with --out and --overwrite alone")
    listing = list_samples(folder)
    if official:
        parted = splits.official(listing, official)
    else:
        assert folds is not None
        samples = splits.rows_of(listing, among)
        nameless = sum(sample.video_id is None for sample in samples)
        if nameless and not leak:
            raise InputError(
                f"{nameless} of {len(samples)} frames name no video_id, so they cannot be parted by video",
                hint="name their videos in labels.csv; --random-frames-leak parts them all the same",
            )
        part = splits.split_leaking if leak else splits.split_by_video
        parted = part(samples, folds, held_out=held_out, seed=seed)
    splits.write_labels(parted, out, overwrite=overwrite)
    absent = sum(not sample.file.is_file() for sample in parted)
    if absent:
        click.echo(f"warning: {absent:,} of {len(parted):,} files are not there", err=True)
    if leak:
        click.echo(
            "warning: frames of one video are on both sides; figures on this split are leaks", err=True
        )
    document = _describe(parted, leak)
    if as_json:
        echo_json({"file": str(out), **document})
    else:
        _print(document)
        console().print(f"wrote {out}")


def _describe(samples: list[Sample], leak: bool) -> dict[str, Any]:
    names = sorted({s.split or "" for s in samples})
    labels = sorted({s.label for s in samples})
    part = {name: [s for s in samples if s.split == name] for name in names}
    return {
        "by": "frame" if leak else "video",
        "splits": {
            name: {
                "frames": len({s.file for s in mine}),
                "videos": len({s.video_id for s in mine if s.video_id}),
                "classes": {label: sum(s.label == label for s in mine) for label in labels},
            }
            for name, mine in part.items()
        },
    }


def _print(document: dict[str, Any]) -> None:
    sides = document["splits"]
    shown = table("class", *sides)
    for label in next(iter(sides.values()))["classes"]:
        shown.add_row(label, *(number(side["classes"][label]) for side in sides.values()))
    shown.add_row("videos", *(number(side["videos"]) for side in sides.values()))
    console().print(shown)
