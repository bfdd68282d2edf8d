"""Tables on a terminal of any width: what does not fit beside each other comes below, and nothing is cut."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.table import Table

__all__ = ["PartedTable"]

# Far more than any table needs: a measure is cut to the width that it is told.
_WIDE = 10_000


class PartedTable:
    """Names in the first column; where the others do not fit beside it, they come in parts, each with the names.

    The other columns hold ``numbers``, flush right, or text that may be folded.
    """

    def __init__(self, columns: Sequence[str], *, numbers: bool) -> None:
        self._columns, self._numbers = tuple(columns), numbers
        self._rows: list[tuple[str, ...]] = []

    def add_row(self, *cells: str) -> None:
        self._rows.append(cells)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from self._parts(console, options)

    def _parts(self, console: Console, options: ConsoleOptions) -> Iterator[Table]:
        """As many columns a part as fit; one that does not fit by itself is folded."""
        from rich.measure import Measurement

        taken: list[int] = []
        for column in range(1, len(self._columns)):
            # rich measures no cell that may not be wrapped as one; a row of words of that width is.
            words = ["x" * self._least(i) for i in (0, *taken, column)]
            probe = self._draw(words, [words])
            needed = Measurement.get(console, options.update(width=_WIDE), probe).maximum
            if taken and needed > options.max_width:
                yield self._part(taken)
                taken = []
            taken.append(column)
        yield self._part(taken)

    def _least(self, column: int) -> int:
        """Cells that a column needs: its longest line, or its longest word where it may be folded."""
        from rich.cells import cell_len

        texts = [self._columns[column], *(row[column] for row in self._rows)]
        whole = column == 0 or self._numbers
        return max(
            (cell_len(p) for text in texts for p in (text.splitlines() if whole else text.split())), default=0
        )

    def _part(self, others: Sequence[int]) -> Table:
        chosen = (0, *others)
        return self._draw(
            [self._columns[i] for i in chosen], [[row[i] for i in chosen] for row in self._rows]
        )

    def _draw(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
        from rich.box import SIMPLE_HEAD
        from rich.table import Table

        made = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
        for i, name in enumerate(columns):
            made.add_column(
                name,
                no_wrap=i == 0 or self._numbers,
                justify="right" if i and self._numbers else "left",
                overflow="fold",
            )
        for row in rows:
            made.add_row(*row)
        return made
