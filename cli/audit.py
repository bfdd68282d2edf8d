"""``capsule-edge audit``: find faults of a data set that a figure measured on it would not show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ._evaluation import progress
from ._options import HELP_OPTIONS, json_option, labels_option
from ._printing import console, echo_json, number, table

# Examples that the terminal shows of a finding, and of a mere note. The page and the JSON have more.
_SHOWN, _SHOWN_OF_A_NOTE = 10, 2


@click.command(
    context_settings=HELP_OPTIONS, epilog="\b\nExample:\n  capsule-edge audit frames --html audit.html"
)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--split",
    help="Split that is to be evaluated.  [default: val; without a val, each split against the others]",
)
@click.option(
    "--html",
    "page",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write the report to this HTML file.",
)
@labels_option
@json_option
@click.pass_context
def command(
    context: click.Context,
    folder: Path,
    split: str | None,
    page: Path | None,
    label_map: Path | None,
    as_json: bool,
) -> None:
    """Find faults of the data set DIR that would make figures measured on it misleading.

    DIR has any layout that "evaluate" reads. Where the images are absent, the audit works from the tables alone.

    Exit code 5 if the evaluated split has one of these faults:

    \b
    - a video, a file, or a copy of an image, is also in another split
    - a file or an image has two labels
    - more than 1 % of the frames, or of those of a class, cannot be read
    - there is only one class or one video

    Lesser faults, such as a class whose frames come from one or two videos, are listed and leave the exit code
    at 0.
    """
    from capsule_edge.evaluation.audit import audit
    from capsule_edge.evaluation.datasets import list_samples
    from capsule_edge.runtime.errors import AuditError

    listing = list_samples(folder, label_map=label_map)
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

    show, data, images = console().print, document["data"], document["images"]
    show(
        f"{data['name']}: {data['frames']:,} files of {data['videos']:,} videos, "
        f"evaluated: {', '.join(document['evaluated']) or 'all'}"
    )
    if images is not None:
        show(
            f"{images['read']:,} images read, {images['absent']:,} not there, {images['unreadable']:,} unreadable, "
            f"{images['files_with_near_duplicates']:,} with a near duplicate"
        )
    show(_class_table(document["classes"]))
    for finding in document["findings"]:
        show(f"{finding['level']}: {finding['message']} [{finding['check']}]")
        most = _SHOWN_OF_A_NOTE if finding["level"] == "note" else _SHOWN
        shown = finding["examples"][:most]
        for line in shown:
            show(f"  {line}")
        if finding["count"] > len(shown) > 0:
            show(f"  and {finding['count'] - len(shown):,} more")
    show(f"verdict: {document['verdict']}, {MEANING[document['verdict']]}")


def _class_table(classes: dict[str, Any]) -> Any:
    """Return a table of classes: per split its frames, its videos, and the fewest videos with 90 % of the frames."""
    heads = {"frames": "frames", "videos": "videos", "rests_on": "videos\nwith 90 %"}
    splits = list(next(iter(classes.values())))
    rows = table("class", *(f"{split}:\n{head}" for split in splits for head in heads.values()))
    for label, entry in classes.items():
        rows.add_row(label, *(number(entry[split][key]) for split in splits for key in heads))
    return rows
