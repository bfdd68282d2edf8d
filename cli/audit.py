"""``capsule-edge audit``: faults of a data set that a figure measured on it would not show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ._evaluation import progress
from ._options import json_option
from ._printing import console, echo_json, number, table

# Examples of a finding on the terminal; the page and the JSON have more.
_SHOWN = 10


@click.command(epilog="\b\nExample:\n  capsule-edge audit frames --html audit.html")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--split", help="The split to be evaluated.  [default: val; without one, each against the others]"
)
@click.option("--html", "page", type=click.Path(path_type=Path), help="Write the report there, one page.")
@json_option
@click.pass_context
def command(
    context: click.Context, folder: Path, split: str | None, page: Path | None, as_json: bool
) -> None:
    """Find what would make evaluation on DIR mislead. DIR is a data set in any layout that 'evaluate' reads.

    Exit code 5 where, for the evaluated split, a video or a copy of a picture is also in another split, a file
    or a picture has two labels, more than 1 % of the frames (or of those of a class) cannot be read, or there
    is but one class or one video. Classes that rest on one or two videos and whatever else weakens a figure
    are listed and leave the exit code 0. Works from the tables alone where the pictures are absent.
    """
    from capsule_edge.evaluation.audit import audit
    from capsule_edge.evaluation.datasets import list_samples
    from capsule_edge.runtime.errors import AuditError

    listing = list_samples(folder)
    with progress("reading", len({sample.file for sample in listing.samples})) as advance:
        document = audit(listing, split=split, advance=advance)
    if page is not None:
        from capsule_edge.evaluation.audit import write_audit

        click.echo(f"wrote {write_audit(document, listing.root, page)}", err=True)
    if as_json:
        echo_json(document)
    else:
        _print(document)
    if document["verdict"] == "misleading":
        context.exit(AuditError.exit_code)


def _print(document: dict[str, Any]) -> None:
    from capsule_edge.evaluation.audit import MEANING

    screen, data, images = console(), document["data"], document["images"]
    screen.print(
        f"{data['name']}: {data['frames']:,} files of {data['videos']:,} videos, "
        f"evaluated: {', '.join(document['evaluated']) or 'all'}"
    )
    if images is not None:
        screen.print(
            f"{images['read']:,} pictures read, {images['absent']:,} not there, {images['unreadable']:,} unreadable, "
            f"{images['files_with_near_duplicates']:,} with a near duplicate"
        )
    sides = list(next(iter(document["classes"].values())))
    classes = table(
        "class", *(f"{side}:\n{what}" for side in sides for what in ("frames", "videos", "rests on"))
    )
    for label, entry in document["classes"].items():
        counts = (entry[side][what] for side in sides for what in ("frames", "videos", "rests_on"))
        classes.add_row(label, *map(number, counts))
    screen.print(classes)
    for finding in document["findings"]:
        screen.print(f"{finding['level']}: {finding['message']} [{finding['check']}]", highlight=False)
        shown = finding["examples"][:_SHOWN] if finding["level"] != "note" else finding["examples"][:2]
        for line in shown:
            screen.print(f"  {line}", highlight=False)
        if finding["count"] > len(shown) > 0:
            screen.print(f"  and {finding['count'] - len(shown):,} more", highlight=False)
    screen.print(f"verdict: {document['verdict']}, {MEANING[document['verdict']]}")
