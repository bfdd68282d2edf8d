"""What the tables of a data set give away without a look at its pictures."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from pathlib import Path

from ..datasets import Sample, conflicting
from .checks import VIDEO_SHARE, Checks, many, rests_on

__all__ = ["check_classes", "check_labels", "check_videos", "shared_videos"]

FEW_VIDEOS = 2


def check_labels(checks: Checks) -> None:
    """One file under two labels, in the evaluated splits and in all the data; names that look like others."""
    grave: set[Path] = set()
    for split in checks.scopes:
        files = conflicting(checks.seen(split))
        grave |= files
        where = f"{split} lists" if split else "the data set lists"
        checks.add(
            "conflicting_labels", split, _with_labels(checks, files, split),
            f"{where} {many(len(files), 'file')} under two labels",
        )  # fmt: skip
    everywhere = conflicting(checks.listing.samples)
    if everywhere > grave:
        checks.add(
            "conflicting_labels", None, _with_labels(checks, everywhere, None),
            f"{many(len(everywhere), 'file')} of all the data are under two labels", level="note",
        )  # fmt: skip
    counts = Counter(sample.label for sample in checks.listing.samples)
    alike = [
        f"{rare} ({counts[rare]}) and {common} ({counts[common]})"
        for rare in counts for common in counts
        if counts[rare] < counts[common] and _one_edit(rare, common)
    ]  # fmt: skip
    checks.add("similar_names", None, alike, "labels that may be one, spelled in two ways")
    empty = [checks.name(folder) for folder in checks.listing.empty_classes]
    checks.add("empty_classes", None, empty, f"{many(len(empty), 'class folder')} without an image")


def _with_labels(checks: Checks, files: Collection[Path], split: str | None) -> list[str]:
    return [
        f"{checks.name(file)}: "
        + ", ".join(sorted({s.label for s in checks.of_file[file] if split is None or s.split == split}))
        for file in sorted(files)
    ]


def check_videos(checks: Checks) -> None:
    """The same video on both sides, and frames that say of no video."""
    told: set[str] = set()
    for split in checks.evaluated:
        shared = shared_videos(checks.listing.samples, split)
        if not shared.keys() - told:
            continue
        told |= shared.keys()
        lines = [
            f"{video}: " + ", ".join(f"{count[side]} in {side}" for side in sorted(count))
            for video, count in sorted(shared.items())
        ]
        frames = sum(count[split] for count in shared.values())
        checks.add(
            "shared_videos", split, lines,
            f"{many(len(shared), 'video')} of {split} also in another split ({frames:,} frames of {split})",
        )  # fmt: skip
    for scope in checks.scopes:
        nameless = sum(sample.video_id is None for sample in checks.seen(scope))
        checks.add(
            "unnamed_videos", scope, [],
            f"{many(nameless, 'frame')} of {scope or 'the data set'} name no video: no leak between videos can be "
            "ruled out, and there are no intervals", nameless,
        )  # fmt: skip


def shared_videos(samples: Sequence[Sample], split: str) -> dict[str, Counter[str]]:
    """The videos of ``split`` that are in another split too, and how many frames of each are where."""
    sides: dict[str, Counter[str]] = defaultdict(Counter)
    for sample in samples:
        if sample.video_id and sample.split:
            sides[sample.video_id][sample.split] += 1
    return {video: count for video, count in sides.items() if split in count and len(count) > 1}


def check_classes(checks: Checks) -> None:
    """What each evaluated class rests on, and which classes a split lacks."""
    labels = {sample.label for sample in checks.listing.samples}
    for split in checks.scopes:
        seen = checks.seen(split)
        there = {sample.label for sample in seen}
        named = {sample.video_id for sample in seen}
        if len(there) < 2 or (len(named) == 1 and None not in named):
            what = f"{many(len(there), 'class')} of {many(len(named), 'video')}"
            checks.add("too_narrow", split, [], f"{split or 'the data set'} has {what} alone", 1)
        weak = []
        for label in sorted(there):
            videos = Counter(s.video_id for s in seen if s.label == label)
            few = rests_on(videos)
            if None not in videos and few <= FEW_VIDEOS:
                frames = sum(videos.values())
                weak.append(f"{label}: {few} of {many(len(videos), 'video')}, {many(frames, 'frame')}")
        checks.add(
            "few_videos", split, weak,
            f"{many(len(weak), 'class')} of {split or 'the data set'} with {100 * VIDEO_SHARE:.0f} % of the frames in "
            "one or two videos",
        )  # fmt: skip
        if split is not None:
            absent = sorted(labels - there)
            checks.add(
                "absent_classes", split, absent, f"{many(len(absent), 'class')} without a frame in {split}"
            )
            others = {s.label for s in checks.listing.samples if s.split and s.split != split}
            unseen = sorted(there - others) if others else []
            checks.add(
                "unseen_classes", split, unseen, f"{many(len(unseen), 'class')} of {split} in no other split"
            )
    if checks.evaluated:
        left = Counter(sample.label for sample in checks.listing.samples if sample.split is None)
        lines = [f"{label}: {count}" for label, count in left.most_common()]
        checks.add(
            "no_split",
            None,
            lines,
            f"{many(left.total(), 'frame')} of {many(len(left), 'class')} in no split",
        )
    sources: dict[str, set[str]] = defaultdict(set)
    for sample in checks.listing.samples:
        if sample.source:
            sources[sample.source].add(sample.label)
    if len(sources) > 1:
        narrow = [
            f"{source}: {', '.join(sorted(found))}"
            for source, found in sorted(sources.items()) if len(found) <= 2 < len(labels)
        ]  # fmt: skip
        checks.add("one_source", None, narrow, "sources of one or two classes: the camera tells the class")


def _one_edit(a: str, b: str) -> bool:
    """One letter more, less, another or swapped with its neighbour."""
    if abs(len(a) - len(b)) > 1 or min(len(a), len(b)) < 4:
        return False
    start = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    x, y = a[start:], b[start:]
    return x[1:] == y[1:] or x[1:] == y or x == y[1:] or (x[:2] == y[1::-1] and x[2:] == y[2:])
