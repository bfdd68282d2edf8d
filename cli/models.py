"""``capsule-edge models``: the models of the workstation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ._options import HELP_OPTIONS, json_option
from ._printing import console, echo_json, table

if TYPE_CHECKING:
    from capsule_edge.workstation.models import ModelChange, ModelFolder

_PACKAGES = ("sqlalchemy", "alembic")
_home_option = click.option(
    "--home",
    type=click.Path(path_type=Path),
    help="The workstation's folder.  [default: CAPSULE_EDGE_HOME, or the user's data folder]",
)


@click.group(
    context_settings=HELP_OPTIONS,
    invoke_without_command=True,
    epilog="\b\nExamples:\n  capsule-edge models\n  capsule-edge models add new.int8.onnx\n"
    "  capsule-edge models use small\n  capsule-edge models rollback",
)
@_home_option
@json_option
@click.pass_context
def command(context: click.Context, home: Path | None, as_json: bool) -> None:
    """List the workstation's models, add one, use one, or go back to the one before.

    New studies are read with the model in use. Studies that were read keep their results, and no model file is
    ever removed. A running service takes over a change at once.

    For research, not a medical device.
    """
    if context.invoked_subcommand is None:
        _show(_folder(home), as_json=as_json)


@command.command("list", context_settings=HELP_OPTIONS)
@_home_option
@json_option
def list_models(home: Path | None, as_json: bool) -> None:
    """List the models; the one in use is marked."""
    _show(_folder(home), as_json=as_json)


@command.command("add", context_settings=HELP_OPTIONS)
@click.argument("file", type=click.Path(path_type=Path))
@_home_option
@json_option
def add_model(file: Path, home: Path | None, as_json: bool) -> None:
    """Check a model FILE, ONNX or TFLite with a specification, and copy it into the folder. It is not used yet."""
    folder = _folder(home)
    added = folder.add(file)
    _show(folder, as_json=as_json, note=f"added: {added.sha256}")


@command.command("use", context_settings=HELP_OPTIONS)
@click.argument("name")
@_home_option
@json_option
def use_model(name: str, home: Path | None, as_json: bool) -> None:
    """Read new studies with the model NAME: standard, small, or 8 or more digits of a SHA-256."""
    folder = _folder(home)
    _change(folder, lambda: folder.use(name))
    _show(folder, as_json=as_json)


@command.command("rollback", context_settings=HELP_OPTIONS)
@_home_option
@json_option
def roll_back(home: Path | None, as_json: bool) -> None:
    """Use the model again that was in use before the last choice."""
    folder = _folder(home)
    _change(folder, folder.roll_back)
    _show(folder, as_json=as_json)


def _folder(home: Path | None) -> ModelFolder:
    from capsule_edge.evaluation._extras import require

    require(*_PACKAGES, extra="serve", what="the workstation")
    from capsule_edge.workstation import default_home
    from capsule_edge.workstation.models import ModelFolder

    return ModelFolder((home or default_home()).absolute() / "models")


def _change(folder: ModelFolder, change: Callable[[], ModelChange]) -> None:
    """Change the model in use, and log it where the workstation has run: it logs an earlier change when it starts."""
    from capsule_edge.workstation.service import change_model
    from capsule_edge.workstation.store import Database

    path = folder.folder.parent / "workstation.sqlite"
    if not path.exists():
        change()
        return
    with Database.open(path) as database:
        change_model(database, folder, change)


def _show(folder: ModelFolder, *, as_json: bool, note: str = "") -> None:
    document: dict[str, Any] = folder.document()
    if as_json:
        echo_json(document)
        return
    rows = table("sha256", "model", "version", "precision", "shipped as", "in use", numbers=False)
    for model in document["models"]:
        rows.add_row(
            model["sha256"][:16],
            model["name"],
            model["version"],
            model["precision"],
            model["shipped"] or "-",
            "yes" if model["in_use"] else "",
        )
    console().print(rows)
    if note:
        click.echo(note)
