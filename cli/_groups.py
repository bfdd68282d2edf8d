"""Show the options of a command under headings in its help."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

__all__ = ["GroupedCommand"]


class GroupedCommand(click.Command):
    """A command whose help lists its options under headings.

    Args:
        groups: pairs of a heading and the names of its parameters. Parameters in no group come last, under
            "Other".
    """

    def __init__(self, *args: Any, groups: Sequence[tuple[str, Sequence[str]]] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.groups = groups

    def format_options(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        lines = {p.name: line for p in self.get_params(context) if (line := p.get_help_record(context))}
        for heading, names in (*self.groups, ("Other", tuple(lines))):
            rows = [lines.pop(name) for name in names if name in lines]
            if rows:
                with formatter.section(heading):
                    formatter.write_dl(rows)
