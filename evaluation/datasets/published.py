"""Read data sets as they were published, including the faults that they were published with.

Kvasir-Capsule (Smedsrud et al., Scientific Data 2021) has a ``metadata.csv`` beside the unpacked class folders, with
one row for each bounding box, and two official split files. The split files use other names for some classes and leave
some classes out.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from capsule_edge.runtime.errors import InputError
from capsule_edge.runtime.recording import is_hidden

from .class_folders import is_data_folder
from .label_keys import LabelKeys
from .samples import IMAGE_SUFFIXES, Sample
from .table_rows import read_rows

__all__ = ["OFFICIAL_SPLITS", "conflicting", "is_kvasir_capsule", "kvasir_capsule", "kvasir_capsule_video"]

SOURCE = "KVASIR"
OFFICIAL_SPLITS = ("split_0", "split_1")
_METADATA = "metadata.csv"
_NAME = re.compile(r"([0-9a-f]{16})_(\d{1,18})\.jpe?g", re.IGNORECASE)


def is_kvasir_capsule(root: Path) -> bool:
    """Return whether ``root`` holds the ``metadata.csv`` of Kvasir-Capsule."""
    table = root / _METADATA
    if not table.is_file():
        return False
    with table.open(encoding="utf-8-sig", errors="replace") as file:
        return "finding_class" in file.readline()


def kvasir_capsule(root: Path, keys: LabelKeys) -> list[Sample]:
    """Read Kvasir-Capsule as published: one sample for each file and class.

    Several boxes of one file and class make one sample. A file listed under two classes makes two samples (see
    ``conflicting``), and so does a file in two official splits. A row of the splits that ``metadata.csv`` lacks makes
    a sample too.

    Args:
        root: The folder of the data set.
        keys: Turns class names into label keys.

    Returns:
        The samples. ``split`` is the official split that lists the file under that class; None where neither does.
        ``file`` is the picture's place below ``root``, or ``root/<name>`` if the picture does not exist.

    Raises:
        InputError: A row lacks a file name, a class or a frame number, or different pictures have one name.
    """
    table = root / _METADATA
    at = _pictures(root)
    splits_of: dict[tuple[str, str], list[str | None]] = defaultdict(list)
    for split in OFFICIAL_SPLITS:
        for pair in dict.fromkeys(official_split(root, split, keys)):
            splits_of[pair].append(split)
    listed: dict[tuple[str, str], Sample] = {}
    needed = ("filename", "video_id", "frame_number", "finding_class")
    for line, row in read_rows(table, needed, short_rows=True):
        name, number = row["filename"], row["frame_number"]
        if not name or not row["finding_class"] or not number.isdecimal() or len(number) > 18:
            raise InputError(f"{table} line {line} lacks its filename, finding_class or frame_number")
        label = keys.key_of(row["finding_class"], f"{table} line {line}")
        if label is not None:
            file, video = at.get(name, root / name), row["video_id"] or None
            sample = Sample(file, label, SOURCE, video, int(number), line=line)
            listed.setdefault((name, label), sample)
    for name, label in splits_of:
        if (name, label) not in listed:
            (named,) = kvasir_capsule_video([Sample(at.get(name, root / name), label, SOURCE)])
            listed[name, label] = named
    return [
        replace(sample, split=split)
        for pair, sample in listed.items()
        for split in splits_of.get(pair, [None])
    ]


def official_split(root: Path, split: str, keys: LabelKeys) -> list[tuple[str, str]]:
    """Return the rows (file name, label key) of ``split_0.csv`` or ``split_1.csv``; none if the file is missing."""
    for table in (root / f"{split}.csv", root / "official_splits" / f"{split}.csv"):
        if table.is_file():
            rows = read_rows(table, ("filename", "label"))
            found = ((r["filename"], keys.key_of(r["label"], f"{table} line {line}")) for line, r in rows)
            return [(name, label) for name, label in found if label is not None]
    return []


def _pictures(root: Path) -> dict[str, Path]:
    """Return the pictures below ``root`` by file name.

    Raises:
        InputError: Two different pictures have one name, so a row could mean either.
    """
    at: dict[str, Path] = {}
    for path in sorted(root.rglob("*")):
        if path.suffix.lower() not in IMAGE_SUFFIXES or not path.is_file():
            continue
        if is_hidden(path) or not all(
            is_data_folder(Path(part)) for part in path.relative_to(root).parts[:-1]
        ):
            continue
        other = at.setdefault(path.name, path)
        # A picture of two classes may have been unpacked into the folders of both.
        if other is not path and other.read_bytes() != path.read_bytes():
            raise InputError(
                f"the tables name files without their folders, and {other} and {path} are different pictures",
                hint="leave the one out that does not belong to the data set",
            )
    return at


def conflicting(samples: Iterable[Sample]) -> set[Path]:
    """Return the files that are listed under more than one label."""
    labels = defaultdict(set)
    for sample in samples:
        labels[sample.file].add(sample.label)
    return {file for file, found in labels.items() if len(found) > 1}


def kvasir_capsule_video(samples: Sequence[Sample]) -> list[Sample]:
    """Take video and frame number of class folders without ``metadata.csv`` from the published file names.

    Each file is looked at alone: one with another name stays as it is. ``video_inferred`` marks the others.
    """
    return [_with_video(sample) for sample in samples]


def _with_video(sample: Sample) -> Sample:
    match = _NAME.fullmatch(sample.file.name)
    if match is None:
        return sample
    video, number = match[1].lower(), int(match[2])
    return replace(sample, source=SOURCE, video_id=video, frame_number=number, video_inferred=True)
