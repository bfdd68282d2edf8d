"""Options that several commands have, and those whose values click cannot read by itself."""

from __future__ import annotations

import click

__all__ = ["json_option", "read_clock"]

json_option = click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")


def read_clock(_context: click.Context, option: click.Parameter, text: str | None) -> float | None:
    """A callback: seconds of a recording, given as such or as ``hh:mm:ss``. Raises ``UsageError`` for anything else."""
    from capsule_edge.runtime.recording import parse_clock

    name = option.opts[0].lstrip("-")
    return None if text is None else parse_clock(text, name=name, hint=f"for example --{name} 00:41:10")
