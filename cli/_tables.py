"""Tables for a terminal of any width: columns that do not fit are printed below, and no cell is cut."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.table import Table

__all__ = ["ColumnTable"]

# Wider than any table. A table is measured at this width, because rich limits a measure to the width it is given.
_UNLIMITED = 10_000


class ColumnTable:
    """A table that is printed in parts where its columns do not fit side by side.

    Each part repeats the first column, which holds the names of the rows. The other columns hold numbers,
    aligned to the right, or text, whose lines may wrap (``numbers``).
    """

    def __init__(self, columns: Sequence[str], *, numbers: bool) -> None:
        self._columns, self._numbers = tuple(columns), numbers
        self._rows: list[tuple[str, ...]] = []

    def add_row(self, *cells: str) -> None:
        """Add a row with one cell for each column."""
        self._rows.append(cells)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from self._parts(console, options)

    def _parts(self, console: Console, options: ConsoleOptions) -> Iterator[Table]:
        """Yield the parts, each with as many columns as fit. A column too wide for any part is wrapped."""
        from rich.measure import Measurement

        taken: list[int] = []
        for column in range(1, len(self._columns)):
            # rich ignores the width of cells that may not wrap. A row of words of the needed widths
            # stands in for them.
            words = ["x" * self._least_width(i) for i in (0, *taken, column)]
            probe = self._draw(words, [words])
            needed = Measurement.get(console, options.update(width=_UNLIMITED), probe).maximum
            if taken and needed > options.max_width:
                yield self._part(taken)
                taken = []
            taken.append(column)
        yield self._part(taken)

    def _least_width(self, column: int) -> int:
        """Return the width of a column's longest line, or of its longest word where lines may wrap."""
        from rich.cells import cell_len

        texts = [self._columns[column], *(row[column] for row in self._rows)]
        whole_lines = column == 0 or self._numbers
        return max(
            (
                cell_len(part)
                for text in texts
                for part in (text.splitlines() if whole_lines else text.split())
            ),
            default=0,
        )

    def _part(self, others: Sequence[int]) -> Table:
        """Return the first column and the columns ``others`` as one table."""
        chosen = (0, *others)
        return self._draw(
            [self._columns[i] for i in chosen], [[row[i] for i in chosen] for row in self._rows]
        )

    def _draw(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
        from rich.box import SIMPLE_HEAD
        from rich.table import Table

        drawn = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
        for i, name in enumerate(columns):
            drawn.add_column(
                name,
                no_wrap=i == 0 or self._numbers,
                justify="right" if i and self._numbers else "left",
                overflow="fold",
            )
        for row in rows:
            drawn.add_row(*row)
        return drawn
