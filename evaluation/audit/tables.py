"""Check the tables of a data set, without its pictures: labels, videos and classes."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from pathlib import Path

from ..datasets import Sample, conflicting, unclear_classes
from .checks import VIDEO_SHARE, Checks, many, rests_on

__all__ = [
    "check_classes",
    "check_labels",
    "check_remarks",
    "check_videos",
    "differ_by_one_edit",
    "shared_videos",
]

FEW_VIDEOS = 2
"""A class that rests on this many videos or fewer is doubtful."""


def check_labels(checks: Checks) -> None:
    """Check for files under two labels, label names with a typing error, and empty class folders."""
    conflicts: set[Path] = set()
    for split in checks.scopes:
        files = conflicting(checks.seen(split))
        conflicts |= files
        where = f"{split} lists" if split else "the data set lists"
        checks.add(
            "conflicting_labels", split, _with_labels(checks, files, split),
            f"{where} {many(len(files), 'file')} under two labels",
        )  # fmt: skip
    everywhere = conflicting(checks.listing.samples)
    if everywhere > conflicts:
        checks.add(
            "conflicting_labels", None, _with_labels(checks, everywhere, None),
            f"{many(len(everywhere), 'file')} of all the data are under two labels", level="note",
        )  # fmt: skip
    counts = Counter(sample.label for sample in checks.listing.samples)
    alike = [
        f"{rare} ({counts[rare]}) and {common} ({counts[common]})"
        for rare in counts for common in counts
        if counts[rare] < counts[common] and differ_by_one_edit(rare, common)
    ]  # fmt: skip
    checks.add("similar_names", None, alike, "labels that may be one, spelled in two ways")
    empty = [checks.name(folder) for folder in checks.listing.empty_classes]
    checks.add("empty_classes", None, empty, f"{many(len(empty), 'class folder')} without an image")


def _with_labels(checks: Checks, files: Collection[Path], split: str | None) -> list[str]:
    """Return one line for each file with the labels that the split gives it."""
    return [
        f"{checks.name(file)}: "
        + ", ".join(sorted({s.label for s in checks.of_file[file] if split is None or s.split == split}))
        for file in sorted(files)
    ]


def check_remarks(checks: Checks) -> None:
    """Report what the reader of the data set found, files in two splits, and classes whose role is not known."""
    for remark in checks.listing.remarks:
        checks.add(remark.check, None, remark.examples, remark.message, remark.count)
    for split in checks.evaluated:
        shared = {
            file: sorted({s.split for s in samples if s.split})
            for file, samples in checks.of_file.items()
            if len({s.split for s in samples if s.split}) > 1 and any(s.split == split for s in samples)
        }
        lines = [f"{checks.name(file)}: {', '.join(splits)}" for file, splits in sorted(shared.items())]
        checks.add(
            "shared_files", split, lines, f"{many(len(lines), 'file')} of {split} also in another split"
        )
    unclear = unclear_classes(checks.listing.classes, checks.listing.stated_roles)
    checks.add(
        "unclear_roles", None, unclear,
        "no class is known as normal, or one may mean health: train asks for its role in a label map (--labels)",
    )  # fmt: skip


def check_videos(checks: Checks) -> None:
    """Check for videos in two splits, and for frames that name no video."""
    reported: set[str] = set()
    for split in checks.evaluated:
        shared = shared_videos(checks.listing.samples, split)
        if not shared.keys() - reported:
            continue
        reported |= shared.keys()
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
    """Return the videos of ``split`` that are in another split too, with the number of frames in each split."""
    sides: dict[str, Counter[str]] = defaultdict(Counter)
    for sample in samples:
        if sample.video_id and sample.split:
            sides[sample.video_id][sample.split] += 1
    return {video: count for video, count in sides.items() if split in count and len(count) > 1}


def check_classes(checks: Checks) -> None:
    """Check how many videos each evaluated class rests on, and which classes a split lacks."""
    for split in checks.scopes:
        _check_width(checks, split)
        _check_few_videos(checks, split)
        if split is not None:
            _check_missing_classes(checks, split)
    if checks.evaluated:
        left = Counter(sample.label for sample in checks.listing.samples if sample.split is None)
        lines = [f"{label}: {count}" for label, count in left.most_common()]
        what = f"{many(left.total(), 'frame')} of {many(len(left), 'class')} in no split"
        checks.add("no_split", None, lines, what)
    _check_sources(checks)


def _check_width(checks: Checks, split: str | None) -> None:
    """Report a split with a single class or a single video."""
    seen = checks.seen(split)
    classes, videos = {sample.label for sample in seen}, {sample.video_id for sample in seen}
    if len(classes) < 2 or (len(videos) == 1 and None not in videos):
        what = f"{many(len(classes), 'class')} of {many(len(videos), 'video')}"
        checks.add("too_narrow", split, [], f"{split or 'the data set'} has {what} alone", 1)


def _check_few_videos(checks: Checks, split: str | None) -> None:
    """Report classes with nearly all their frames in ``FEW_VIDEOS`` videos or fewer."""
    weak = []
    seen = checks.seen(split)
    for label in sorted({sample.label for sample in seen}):
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


def _check_missing_classes(checks: Checks, split: str) -> None:
    """Report classes that ``split`` lacks, and classes that only ``split`` has."""
    samples = checks.listing.samples
    there = {sample.label for sample in checks.seen(split)}
    absent = sorted({sample.label for sample in samples} - there)
    checks.add("absent_classes", split, absent, f"{many(len(absent), 'class')} without a frame in {split}")
    others = {s.label for s in samples if s.split and s.split != split}
    unseen = sorted(there - others) if others else []
    checks.add("unseen_classes", split, unseen, f"{many(len(unseen), 'class')} of {split} in no other split")


def _check_sources(checks: Checks) -> None:
    """Report sources with one or two classes: a model can then know the class by the camera."""
    sources: dict[str, set[str]] = defaultdict(set)
    for sample in checks.listing.samples:
        if sample.source:
            sources[sample.source].add(sample.label)
    labels = {sample.label for sample in checks.listing.samples}
    if len(sources) > 1:
        narrow = [
            f"{source}: {', '.join(sorted(found))}"
            for source, found in sorted(sources.items()) if len(found) <= 2 < len(labels)
        ]  # fmt: skip
        what = "sources of one or two classes: a model can tell these classes by the camera"
        checks.add("one_source", None, narrow, what)


def differ_by_one_edit(a: str, b: str) -> bool:
    """Return whether two names differ by one letter added, dropped, replaced or swapped with its neighbour."""
    if abs(len(a) - len(b)) > 1 or min(len(a), len(b)) < 4:
        return False
    start = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    x, y = a[start:], b[start:]
    return x[1:] == y[1:] or x[1:] == y or x == y[1:] or (x[:2] == y[1::-1] and x[2:] == y[2:])
