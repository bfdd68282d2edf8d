"""Check the pictures of a data set: find unreadable files and copies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .checks import Checks, many
from .near_duplicates import Fingerprints, exact_groups, near_pairs

__all__ = ["check_images"]

MAX_UNREADABLE = 0.01
"""Largest share of the evaluated frames, or of the frames of one class, that may be unreadable."""

_SHOWN = 200


def check_images(checks: Checks, prints: Fingerprints, absent: Sequence[Path]) -> dict[str, Any]:
    """Run the checks that need pictures and return the ``images`` part of the audit.

    Args:
        checks: Takes the findings.
        prints: The fingerprints of the readable files.
        absent: Files that do not exist.
    """
    unreadable = {**dict.fromkeys(absent, "not there"), **dict(prints.unreadable)}
    _check_unreadable(checks, unreadable)
    blank = [checks.name(prints.files[i]) for i in range(len(prints.files)) if prints.blank[i]]
    checks.add("blank", None, blank, f"{many(len(blank), 'picture')} of one colour, not compared")
    twelve = [checks.name(file) for file in prints.twelve_bits]
    checks.add(
        "twelve_bits", None, twelve,
        f"{many(len(twelve), 'picture')} of 16 bits with no value above 4095, read as 12 bits",
    )  # fmt: skip
    groups = exact_groups(prints)
    exact = [(group[0], other, 0) for group in groups for other in group[1:]]
    near = [tuple(pair) for pair in near_pairs(prints)]
    lines = [" = ".join(checks.name(prints.files[i]) for i in group) for group in groups]
    checks.add(
        "exact_duplicates", None, lines,
        f"{many(sum(map(len, groups)) - len(groups), 'file')} with the bytes of another",
    )  # fmt: skip
    copies = {i for a, b, _ in near for i in (a, b)}
    checks.add(
        "near_duplicates", None, [_pair(checks, prints, *pair) for pair in near],
        f"{many(len(near), 'near-duplicate pair')} over {many(len(copies), 'file')}: so many frames say less than "
        "their number", len(near),
    )  # fmt: skip
    across = _check_across(checks, prints, [*exact, *near])
    return {
        "read": len(prints.files),
        "absent": len(absent),
        "unreadable": len(prints.unreadable),
        "exact_duplicates": len(exact),
        "near_duplicate_pairs": len(near),
        "files_with_near_duplicates": len(copies),
        "copies": across[:_SHOWN],
    }


def _check_unreadable(checks: Checks, reasons: Mapping[Path, str]) -> None:
    """Report files that cannot be read, with the reason for each."""
    for split in checks.scopes:
        seen = {sample.file: sample.label for sample in checks.seen(split)}
        gone = [file for file in seen if file in reasons]
        whole, part = Counter(seen.values()), Counter(seen[file] for file in gone)
        worst = max((part[label] / whole[label] for label in part), default=0.0)
        much = max(worst, len(gone) / max(1, len(seen))) > MAX_UNREADABLE
        checks.add(
            "unreadable", split, [f"{checks.name(file)}: {reasons[file]}" for file in gone],
            f"{many(len(gone), 'file')} of {split or 'the data set'} cannot be read, up to {worst:.1%} of a class",
            level="misleading" if much else "note",
        )  # fmt: skip
    if checks.evaluated:
        others = [f for f in reasons if not any(s.split in checks.evaluated for s in checks.of_file[f])]
        lines = [f"{checks.name(file)}: {reasons[file]}" for file in others]
        what = f"{many(len(others), 'file')} outside the evaluated split cannot be read"
        checks.add("unreadable", None, lines, what, level="note")


def _check_across(
    checks: Checks, prints: Fingerprints, pairs: Sequence[tuple[int, ...]]
) -> list[dict[str, Any]]:
    """Report copies on both sides of a split, in two videos or under two labels.

    ``pairs`` are (index, index, distance in bits). Return one entry for each such pair, with the checks that it fails.
    """
    failed: dict[str, list[str]] = {
        "copies_across_splits": [],
        "copies_across_videos": [],
        "conflicting_copies": [],
    }
    across = []
    for a, b, distance in pairs:
        one, two = checks.of_file[prints.files[a]], checks.of_file[prints.files[b]]
        splits = [(x.split, y.split) for x in one for y in two]
        inside = not checks.evaluated or any(s in checks.evaluated for pair in splits for s in pair)
        videos = {s.video_id for s in one}, {s.video_id for s in two}
        wrong = {
            "copies_across_splits": inside and any(x != y and x and y for x, y in splits),
            "copies_across_videos": None not in videos[0] | videos[1] and videos[0].isdisjoint(videos[1]),
            # Similar frames of a video may differ in label, as a lesion comes into view. Equal pictures may not.
            "conflicting_copies": distance == 0
            and inside
            and {s.label for s in one} != {s.label for s in two},
        }
        if any(wrong.values()):
            names = checks.name(prints.files[a]), checks.name(prints.files[b])
            found = [check for check, is_wrong in wrong.items() if is_wrong]
            across.append({"a": names[0], "b": names[1], "distance": distance, "checks": found})
            for check in found:
                failed[check].append(_pair(checks, prints, a, b, distance))
    for check, where in (
        ("copies_across_splits", "on both sides of an evaluated split"),
        ("copies_across_videos", "in two videos"),
        ("conflicting_copies", "under two labels"),
    ):
        checks.add(check, None, failed[check], f"{many(len(failed[check]), 'pair')} of copies {where}")
    return across


def _pair(checks: Checks, prints: Fingerprints, a: int, b: int, distance: int) -> str:
    return f"{checks.name(prints.files[a])} ~ {checks.name(prints.files[b])} ({distance} bits)"
