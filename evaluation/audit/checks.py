"""What an audit collects: findings with their levels, over the samples of the splits that are evaluated."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..datasets import Listing, Sample, name_below

__all__ = ["LEVELS", "LEVEL_ORDER", "AuditFinding", "Checks", "Level", "many", "rests_on"]

Level = Literal["misleading", "doubtful", "note"]

LEVEL_ORDER: tuple[Level, ...] = ("misleading", "doubtful", "note")

LEVELS: Mapping[str, Level] = {
    "shared_videos": "misleading",
    "copies_across_splits": "misleading",
    "conflicting_labels": "misleading",
    "unreadable": "misleading",
    "too_narrow": "misleading",
    "conflicting_copies": "misleading",
    "few_videos": "doubtful",
    "absent_classes": "doubtful",
    "unseen_classes": "doubtful",
    "unnamed_videos": "doubtful",
    "copies_across_videos": "doubtful",
    "empty_classes": "doubtful",
    "near_duplicates": "note",
    "exact_duplicates": "note",
    "similar_names": "note",
    "one_source": "note",
    "no_split": "note",
    "blank": "note",
    "no_images": "note",
}
"""Every check. One that found nothing in the evaluated split but something elsewhere is a ``note``."""

VIDEO_SHARE = 0.9
"""A class rests on the fewest videos that hold this share of its frames."""

# Examples kept of each finding: a leak of ten thousand frames needs no longer list than one of a hundred.
_EXAMPLES = 200


@dataclass(frozen=True)
class AuditFinding:
    """What one check found: ``count`` items, of which ``examples`` are the first."""

    check: str
    level: Level
    split: str | None
    count: int
    message: str
    examples: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return {
            "check": self.check,
            "level": self.level,
            "split": self.split,
            "count": self.count,
            "message": self.message,
            "examples": list(self.examples),
        }


class Checks:
    """The findings so far. ``of_file`` are the samples of each file."""

    def __init__(self, listing: Listing, evaluated: tuple[str, ...]) -> None:
        self.listing, self.evaluated = listing, evaluated
        self.findings: list[AuditFinding] = []
        self.of_file: dict[Path, list[Sample]] = defaultdict(list)
        for sample in listing.samples:
            self.of_file[sample.file].append(sample)

    def add(
        self,
        check: str,
        split: str | None,
        examples: Sequence[str],
        message: str,
        count: int | None = None,
        level: Level | None = None,
    ) -> None:
        """Keep a finding, unless it is of nothing. ``count`` is by default that of ``examples``."""
        found = len(examples) if count is None else count
        if found:
            grave = level or LEVELS[check]
            self.findings.append(
                AuditFinding(check, grave, split, found, message, tuple(examples[:_EXAMPLES]))
            )

    def seen(self, split: str | None) -> list[Sample]:
        """The samples of a split, all of them for None."""
        return [s for s in self.listing.samples if split is None or s.split == split]

    @property
    def scopes(self) -> tuple[str | None, ...]:
        """The splits to look at, or None alone where the data set has none."""
        return self.evaluated or (None,)

    def name(self, file: Path) -> str:
        return name_below(self.listing.root, file)


def rests_on(videos: Counter[Any]) -> int:
    """The fewest videos that hold ``VIDEO_SHARE`` of the frames."""
    needed, held = VIDEO_SHARE * videos.total(), 0
    for number, (_, frames) in enumerate(videos.most_common(), start=1):
        held += frames
        if held >= needed:
            return number
    return 0


def many(count: int, what: str) -> str:
    """``1 file``, ``2 files``."""
    plural = f"{what}es" if what.endswith("s") else f"{what}s"
    return f"{count:,} {what if count == 1 else plural}"
