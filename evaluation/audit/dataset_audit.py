"""Audit a data set for faults that a figure measured on it does not show.

Every check has a level (``LEVELS``), and the verdict is the gravest level with a finding:

- ``misleading``: figures of this split do not describe the model on patients that it has not seen, and no confidence
  interval shows that.
- ``doubtful``: a figure rests on too few videos, or a leak cannot be ruled out.
- ``note``: worth knowing.

The audit checks the evaluated split against all others. That is ``val`` where the data set has it. A data set with
splits but without ``val``, such as Kvasir-Capsule with its official ones, has each split checked against the others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from capsule_edge.runtime.errors import UsageError

from ..datasets import DEFAULT_SPLIT, Listing, conflicting
from .checks import LEVEL_ORDER, LEVELS, AuditFinding, Checks, rests_on
from .images import check_images
from .near_duplicates import fingerprint
from .tables import check_classes, check_labels, check_remarks, check_videos

__all__ = ["LEVELS", "AuditFinding", "audit"]


def audit(
    listing: Listing, *, split: str | None = None, advance: Callable[[int], None] | None = None
) -> dict[str, Any]:
    """Audit a data set.

    Args:
        listing: The rows of the data set.
        split: The evaluated split; None chooses it as described above.
        advance: Called with the number of files that were read since the last call.

    Returns:
        A JSON-ready document with ``data``, ``verdict``, ``evaluated``, ``findings``, ``classes`` and ``images``. If
        no picture exists, only the tables are audited and ``images`` is None.

    Raises:
        UsageError: The data set has no such split.
    """
    evaluated = _evaluated(listing, split)
    files = list(dict.fromkeys(sample.file for sample in listing.samples))
    absent = [file for file in files if not file.is_file()]
    known = len(absent) < len(files)
    prints = fingerprint([f for f in files if f not in set(absent)], advance=advance) if known else None
    checks = Checks(listing, evaluated)
    check_remarks(checks)
    check_labels(checks)
    check_videos(checks)
    check_classes(checks)
    if prints is None:
        checks.add("no_images", None, [], "none of the pictures is there: only the tables were audited", 1)
        images = None
    else:
        images = check_images(checks, prints, absent)
    checks.findings.sort(key=lambda finding: LEVEL_ORDER.index(finding.level))
    return {
        "data": {
            "name": listing.root.resolve().name,
            "table": listing.table.name,
            "frames": len(files),
            "two_labels": len(conflicting(listing.samples)),
            "videos": len({s.video_id for s in listing.samples if s.video_id}),
            "splits": dict(sorted(Counter(s.split for s in listing.samples if s.split).items())),
        },
        "evaluated": list(evaluated),
        "verdict": checks.findings[0].level if checks.findings else "sound",
        "findings": [finding.to_dict() for finding in checks.findings],
        "classes": _class_table(listing),
        "images": images,
    }


def _evaluated(listing: Listing, split: str | None) -> tuple[str, ...]:
    there = sorted({sample.split for sample in listing.samples if sample.split})
    if split is None:
        return (DEFAULT_SPLIT,) if DEFAULT_SPLIT in there else tuple(there)
    if split not in there:
        known = f"it has {', '.join(there)}" if there else "it names no splits"
        raise UsageError(f"the data set {listing.root} has no split {split!r}, {known}")
    return (split,)


def _class_table(listing: Listing) -> dict[str, dict[str, Any]]:
    """Count frames and videos of each class, in total and by split."""
    counts: dict[str, dict[str, dict[str, int]]] = {}
    for label in sorted({sample.label for sample in listing.samples}):
        mine = [sample for sample in listing.samples if sample.label == label]
        sides = ["all", *sorted({s.split for s in listing.samples if s.split})]
        parts = {side: [s for s in mine if side == "all" or s.split == side] for side in sides}
        counts[label] = {
            side: {
                "frames": len({s.file for s in part}),
                "videos": len({s.video_id for s in part if s.video_id}),
                "rests_on": rests_on(Counter(s.video_id for s in part if s.video_id)),
            }
            for side, part in parts.items()
        }
    return counts
