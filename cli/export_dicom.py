"""``capsule-edge export-dicom``: write the findings of a result or a reading as DICOM objects."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ._options import HELP_OPTIONS, json_option
from ._printing import echo_json

if TYPE_CHECKING:
    from capsule_edge.workstation.dicom import Exported

_KINDS = {
    "report": "structured report (preliminary, unverified)",
    "key_image": "key image",
    "selection": "selection of key images",
    "video": "video",
    "pdf": "report as PDF",
}


@click.command(
    context_settings=HELP_OPTIONS,
    epilog="\b\nExamples:\n"
    "  capsule-edge export-dicom exam.capsule-edge --recording exam.mp4 --patient patient.json --out dicom\n"
    "  capsule-edge export-dicom exam.capsule-edge --recording IM0001 --out dicom",
)
@click.argument("findings", metavar="READING|STUDY", type=click.Path(path_type=Path))
@click.option(
    "--recording",
    type=click.Path(path_type=Path),
    required=True,
    metavar="VIDEO",
    help="The recording that was read.",
)
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, metavar="DIR", help="Folder for the objects."
)
@click.option(
    "--patient",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="JSON file that says whose the examination is (docs/dicom.md). Not needed for a recording that was read from "
    "DICOM.",
)
@click.option(
    "--codes",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="JSON file with your codes for findings, such as SNOMED CT, and their licence.",
)
@click.option(
    "--anonymise",
    "secret",
    type=click.Path(path_type=Path),
    metavar="SECRET",
    help="Leave out whose the examination is. SECRET is a file that maps identities and shifts dates; it is made where "
    "it is absent. Keep it.",
)
@json_option
def command(
    findings: Path,
    recording: Path,
    out: Path,
    patient: Path | None,
    codes: Path | None,
    secret: Path | None,
    as_json: bool,
) -> None:
    """Write the findings of a recording as DICOM objects.

    STUDY is the folder that "run" wrote, READING the JSON file of a reading. The objects are a structured report (TID
    1500), key images, their selection, and the video where DICOM allows its stream. A second export writes nothing
    new; a changed reading becomes a new version of the report.

    For research, not a medical device.
    """
    from capsule_edge.workstation.dicom import (
        export_findings,
        make_reading_pdf,
        open_anonymiser,
        read_code_map,
        read_examination,
        read_findings,
    )

    given = [] if patient is None else [("the file of --patient", read_examination(patient))]
    document = read_findings(findings)
    exported = export_findings(
        document,
        recording,
        out,
        given=given,
        codes=None if codes is None else read_code_map(codes),
        anonymiser=None if secret is None else open_anonymiser(secret),
        report_pdf=make_reading_pdf(document, recording),
    )
    if as_json:
        echo_json(_document(exported))
        return
    _print(exported)


def _document(exported: Exported) -> dict[str, Any]:
    return {
        "folder": str(exported.folder),
        "files": exported.files,
        "written": exported.written,
        "left_out": exported.left_out,
    }


def _print(exported: Exported) -> None:
    for kind, names in exported.files.items():
        new = sum(name in exported.written for name in names)
        click.echo(f"{len(names)} {_KINDS[kind]}{'s' if len(names) > 1 else ''}, {new} new")
    for reason in exported.left_out:
        click.echo(f"left out: {reason}")
    if exported.anonymised and "key_image" not in exported.files:
        click.echo("anonymised")
    elif exported.anonymised:
        click.echo(
            "anonymised; the key images are black outside the field of view. The export cannot know what is burnt in "
            "inside it: look at each before you give it away"
        )
    click.echo(f"folder: {exported.folder}")
