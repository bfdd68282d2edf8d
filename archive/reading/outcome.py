"""The counts of a run of ``archive read``, and the interface of those who are told of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from ..engines import Refusal
from ..manifest import Row

__all__ = ["ReadingOutcome", "ReadingProgress"]


@dataclass
class ReadingOutcome:
    """The counts of one run: recordings read, set aside and failed.

    Attributes:
        listed: number of recordings.
        unchanged: number of those that an earlier run had read.
        frames: number of frames that this run read.
        rows: the rows that are not read whole, of earlier runs too.
        read, incomplete, failed, set_aside: number of recordings by state.
        refusals: machines that got no task.
        copies: recordings of this run that share a result, and the recording that had it first.
        passed_over: what was seen and is no recording, in sentences. It does not count.
    """

    listed: int = 0
    unchanged: int = 0
    frames: int = 0
    read: int = 0
    incomplete: int = 0
    failed: int = 0
    set_aside: int = 0
    rows: list[Row] = field(default_factory=list)
    refusals: tuple[Refusal, ...] = ()
    copies: list[tuple[str, str]] = field(default_factory=list)
    passed_over: list[str] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        """True if every recording was read whole."""
        return not (self.incomplete or self.failed or self.set_aside)

    @property
    def done(self) -> int:
        """Number of recordings that are over."""
        return self.read + self.incomplete + self.failed + self.set_aside

    def count(self, row: Row, *, earlier: bool) -> None:
        """Count a row; ``earlier``: of an earlier run."""
        setattr(self, row.state, getattr(self, row.state) + 1)
        self.unchanged += earlier
        # A result that was there already took no time.
        self.frames += row.frames if row.frames and row.seconds and not earlier else 0
        if row.state != "read":
            self.rows.append(row)


class ReadingProgress(Protocol):
    """Is told how the reading goes on."""

    def update(self, outcome: ReadingOutcome, *, running: int, waiting: int, workers: int) -> None:
        """Take the state: tasks that run and that wait, and the number of workers."""
