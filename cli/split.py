"""``capsule-edge split``: divide a data set by video and write the splits as a ``labels.csv``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from capsule_edge.runtime.errors import InputError, UsageError

from ._evaluation import absent_classes, count_splits, print_splits, warn_of_remarks
from ._options import HELP_OPTIONS, json_option, labels_option
from ._printing import console, echo_json

if TYPE_CHECKING:
    from capsule_edge.evaluation.datasets import Listing, Sample


@dataclass(frozen=True, kw_only=True)
class SplitOptions:
    """The division of a data set: into ``folds``, or as the data set's authors did (``official``)."""

    folds: int | None
    held_out: int | None
    among: str | None
    official: Literal["published", "cleaned"] | None
    seed: int
    leak: bool

    def check(self) -> None:
        """Raise ``UsageError`` for options that do not go together."""
        if (self.folds is None) == (self.official is None):
            raise UsageError("either --folds or --official is needed", hint="for instance --folds 5")
        if self.official and (self.held_out is not None or self.among or self.leak):
            raise UsageError("--official goes with --out and --overwrite alone")


@click.command(
    context_settings=HELP_OPTIONS,
    epilog="\b\nExample:\n  capsule-edge split frames --folds 5 --hold-out 0 --out divided/labels.csv",
)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--folds", type=click.IntRange(2), help="Number of folds. They become the splits fold0, fold1 and so on."
)
@click.option(
    "--hold-out",
    "held_out",
    type=click.IntRange(0),
    metavar="N",
    help="Make fold N the split val, and all other folds the split train.",
)
@click.option(
    "--among", metavar="SPLIT", help="Divide only the rows of this split, such as train.  [default: all]"
)
@click.option(
    "--official",
    type=click.Choice(["published", "cleaned"]),
    help="Use Kvasir-Capsule's own splits: as published, or without their faults.",
)
@click.option(
    "--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Seed of the folds."
)
@click.option(
    "--random-frames-leak",
    "leak",
    is_flag=True,
    help="Divide by frame instead of by video, so that near copies of a frame are in two splits. Use it only "
    "to show what such a leak does to figures.",
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The labels.csv to write.")
@click.option("--overwrite", is_flag=True, help="Replace --out if it exists.")
@labels_option
@json_option
def command(
    folder: Path, out: Path, overwrite: bool, label_map: Path | None, as_json: bool, **given: Any
) -> None:
    """Divide the data set DIR by video, with all classes in similar shares, and write the splits to --out.

    The file may lie beside the frames or elsewhere. Its folder is then a data set for train, evaluate and
    audit. Labels are written as keys. A class without a frame in a split is named. A file that is listed under
    two labels is left out. If frames name no video, they cannot be divided
    without a leak, and the command refuses.
    """
    from capsule_edge.evaluation.datasets import list_samples, splits

    options = SplitOptions(**given)
    options.check()
    listing = list_samples(folder, label_map=label_map)
    divided = _divide(listing, options)
    splits.write_labels(divided, out, overwrite=overwrite)
    warn_of_remarks(listing.remarks)
    absent = sum(not sample.file.is_file() for sample in divided)
    if absent:
        click.echo(f"warning: {absent:,} of {len(divided):,} files are not there", err=True)
    if options.leak:
        click.echo(
            "warning: frames of one video are in several splits, a leak that makes figures misleading",
            err=True,
        )
    counts = count_splits(divided)
    lacking = absent_classes(counts)
    for name, keys in lacking.items():
        click.echo(f"warning: {name or 'the data set'} has no frame of {', '.join(keys)}", err=True)
    if as_json:
        by = "frame" if options.leak else "video"
        echo_json({"file": str(out), "by": by, "splits": counts, "absent_classes": lacking})
    else:
        print_splits(counts)
        console().print(f"wrote {out}")


def _divide(listing: Listing, options: SplitOptions) -> list[Sample]:
    from capsule_edge.evaluation.datasets import splits

    if options.folds is None:
        assert options.official is not None
        return splits.official(listing, options.official)
    samples = splits.rows_of(listing, options.among)
    nameless = sum(sample.video_id is None for sample in samples)
    if nameless and not options.leak:
        raise InputError(
            f"{nameless} of {len(samples)} frames name no video_id, so they cannot be divided by video",
            hint="name their videos in labels.csv; --random-frames-leak divides them all the same",
        )
    divide = splits.split_leaking if options.leak else splits.split_by_video
    return divide(samples, options.folds, held_out=options.held_out, seed=options.seed)
