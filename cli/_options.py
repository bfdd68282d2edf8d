"""Options whose values click cannot read by itself."""

from __future__ import annotations

import click

__all__ = ["read_clock"]


def read_clock(_context: click.Context, option: click.Parameter, text: str | None) -> float | None:
    """A callback: seconds of a recording, given as such or as ``hh:mm:ss``. Raises ``UsageError`` for anything else."""
    from capsule_edge.runtime.clocks import parse_clock

    name = option.opts[0].lstrip("-")
    return None if text is None else parse_clock(text, name=name, hint=f"for example --{name} 00:41:10")
