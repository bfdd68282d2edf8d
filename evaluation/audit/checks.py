"""Collect the findings of an audit, with their levels, over the samples of the evaluated splits."""

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
    "shared_files": "misleading",
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
    "repeated_rows": "note",
    "outside_classes": "note",
    "unread_files": "note",
    "inferred_videos": "note",
    "excluded_frames": "note",
    "unused_names": "note",
    "unclear_roles": "note",
    "twelve_bits": "note",
}
"""The level of each check. A fault outside the evaluated split is a ``note``."""

VIDEO_SHARE = 0.9
"""A class rests on the smallest set of videos that together hold this share of its frames."""

# At most this many examples of a finding: a leak of ten thousand frames needs no longer list than one of a hundred.
_EXAMPLES = 200


@dataclass(frozen=True)
class AuditFinding:
    """The result of one check: ``count`` faulty items, of which ``examples`` names the first.

    ``split`` is the split that was checked, None for the whole data set.
    """

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
    """The data set under audit and the findings so far; ``of_file`` holds the samples of each file."""

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
        """Add a finding if its count is not 0.

        Args:
            check: The name of the check, a key of ``LEVELS``.
            split: The split that was checked, None for the whole data set.
            examples: The faulty items, one line each.
            message: One line for the reader.
            count: The number of faulty items; None: that of ``examples``.
            level: The level; None: that of the check.
        """
        found = len(examples) if count is None else count
        if found:
            chosen = level or LEVELS[check]
            self.findings.append(
                AuditFinding(check, chosen, split, found, message, tuple(examples[:_EXAMPLES]))
            )

    def seen(self, split: str | None) -> list[Sample]:
        """Return the samples of a split, or all samples for None."""
        return [s for s in self.listing.samples if split is None or s.split == split]

    @property
    def scopes(self) -> tuple[str | None, ...]:
        """The splits to check; (None,), the whole data set, where it has no splits."""
        return self.evaluated or (None,)

    def name(self, file: Path) -> str:
        """Return the file's name relative to the data set."""
        return name_below(self.listing.root, file)


def rests_on(videos: Counter[Any]) -> int:
    """Return the smallest number of videos that hold ``VIDEO_SHARE`` of the frames.

    Args:
        videos: The number of frames of each video.

    Example:
        >>> rests_on(Counter(a=90, b=5, c=5))
        1
    """
    needed, held = VIDEO_SHARE * videos.total(), 0
    for number, (_, frames) in enumerate(videos.most_common(), start=1):
        held += frames
        if held >= needed:
            return number
    return 0


def many(count: int, what: str) -> str:
    """Return a count with its noun in singular or plural: ``1 file``, ``2 files``."""
    plural = f"{what}es" if what.endswith("s") else f"{what}s"
    return f"{count:,} {what if count == 1 else plural}"
