"""``archive status``: counts of the manifest, and the recordings that are not read whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ._archive_reading import describe_row
from ._printing import console, echo_json, number, table

__all__ = ["show_status"]


def show_status(folder: Path, *, listed: bool, as_json: bool) -> int:
    """Print the status of an archive and return the exit code."""
    from capsule_edge.archive.manifest import Manifest
    from capsule_edge.runtime.errors import InputError

    manifest = Manifest(folder)
    if not manifest.folder.is_dir():
        raise InputError(f"{folder} holds no archive", hint="name the folder that 'archive read --out' wrote")
    found = manifest.summary()
    document: dict[str, Any] = {
        "recordings": found.recordings,
        "states": found.states,
        "causes": found.causes,
        "frames": found.frames,
        "core_s": found.seconds,
        "suggestions": found.suggestions,
    }
    rows = [row for row in manifest.rows() if row.state != "read"] if listed else []
    if as_json:
        if listed:
            document["not_whole"] = [
                {"recording": row.recording, "state": row.state, "cause": row.cause, "message": row.message}
                for row in rows
            ]
        echo_json(document)
        return 0
    shown = table("recordings", "number")
    for name, count in found.states.items():
        shown.add_row(name.replace("_", " "), number(count))
    for name, count in found.causes.items():
        shown.add_row(f"  cause: {name}", number(count))
    console().print(shown)
    console().print(
        f"{number(found.frames)} frames in the results, {number(found.suggestions)} suggestions, "
        f"{found.seconds / 3600:.2f} core hours"
    )
    for row in rows:
        click.echo(describe_row(row))
    return 0
