"""Options that several commands share, and callbacks for values that click cannot parse."""

from __future__ import annotations

from pathlib import Path

import click

__all__ = ["HELP_OPTIONS", "json_option", "labels_option", "model_argument", "read_clock"]

HELP_OPTIONS = {"help_option_names": ["-h", "--help"]}
"""Context settings of every command."""

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")

labels_option = click.option(
    "--labels",
    "label_map",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Label map (YAML): the key, name and role of each class name of the data set, see docs/data.md.",
)

model_argument = click.argument("model", metavar="[MODEL]", required=False, type=click.Path(path_type=Path))


def read_clock(_context: click.Context, option: click.Parameter, text: str | None) -> float | None:
    """Return the time ``text`` (seconds, or hh:mm:ss) in seconds. Raises ``UsageError`` for anything else."""
    from capsule_edge.runtime.recording import parse_clock

    name = option.opts[0].lstrip("-")
    return None if text is None else parse_clock(text, name=name, hint=f"for example --{name} 00:41:10")
