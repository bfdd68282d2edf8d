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

from .samples import IMAGE_SUFFIXES, Sample, label_key, read_rows

__all__ = ["OFFICIAL_SPLITS", "conflicting", "is_kvasir_capsule", "kvasir_capsule", "kvasir_capsule_video"]

SOURCE = "KVASIR"
OFFICIAL_SPLITS = ("split_0", "split_1")
_METADATA = "metadata.csv"
_NAME = re.compile(r"([0-9a-f]{16})_(\d+)\.jpe?g", re.IGNORECASE)


def is_kvasir_capsule(root: Path) -> bool:
    """Return whether ``root`` holds the ``metadata.csv`` of Kvasir-Capsule."""
    table = root / _METADATA
    if not table.is_file():
        return False
    with table.open(encoding="utf-8-sig", errors="replace") as file:
        return "finding_class" in file.readline()


def kvasir_capsule(root: Path) -> list[Sample]:
    """Read Kvasir-Capsule as published: one sample for each file and class.

    Several boxes of one file and class make one sample. A file listed under two classes makes two samples (see
    ``conflicting``), and so does a file in two official splits. A row of the splits that ``metadata.csv`` lacks makes
    a sample too.

    Returns:
        The samples. ``split`` is the official split that lists the file under that class; None where neither does.
        ``file`` is the picture's place below ``root``, or ``root/<name>`` if the picture does not exist.

    Raises:
        InputError: A row lacks a file name, a class or a frame number.
    """
    table = root / _METADATA
    pictures = (path for path in root.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    at = {path.name: path for path in pictures if not is_hidden(path)}
    splits_of: dict[tuple[str, str], list[str | None]] = defaultdict(list)
    for split in OFFICIAL_SPLITS:
        for pair in dict.fromkeys(official_split(root, split)):
            splits_of[pair].append(split)
    listed: dict[tuple[str, str], Sample] = {}
    for line, row in read_rows(table, ("filename", "video_id", "frame_number", "finding_class")):
        name, label = row["filename"], label_key(row["finding_class"])
        if not name or not label or not row["frame_number"].isdecimal():
            raise InputError(f"{table} line {line} lacks its filename, finding_class or frame_number")
        number = int(row["frame_number"])
        listed.setdefault(
            (name, label), Sample(at.get(name, root / name), label, SOURCE, row["video_id"] or None, number)
        )
    for name, label in splits_of:
        if (name, label) not in listed:
            (named,) = kvasir_capsule_video([Sample(at.get(name, root / name), label, SOURCE)])
            listed[name, label] = named
    return [
        replace(sample, split=split)
        for pair, sample in listed.items()
        for split in splits_of.get(pair, [None])
    ]


def official_split(root: Path, split: str) -> list[tuple[str, str]]:
    """Return the rows (file name, label key) of ``split_0.csv`` or ``split_1.csv``; none if the file is missing."""
    for table in (root / f"{split}.csv", root / "official_splits" / f"{split}.csv"):
        if table.is_file():
            rows = read_rows(table, ("filename", "label"))
            return [(row["filename"], label_key(row["label"])) for _, row in rows]
    return []


def conflicting(samples: Iterable[Sample]) -> set[Path]:
    """Return the files that are listed under more than one label."""
    labels = defaultdict(set)
    for sample in samples:
        labels[sample.file].add(sample.label)
    return {file for file, found in labels.items() if len(found) > 1}


def kvasir_capsule_video(samples: Sequence[Sample]) -> list[Sample]:
    """Take video and frame number of class folders without ``metadata.csv`` from the published file names.

    If a file has another name, return the samples unchanged.
    """
    named = []
    for sample in samples:
        match = _NAME.fullmatch(sample.file.name)
        if match is None:
            return list(samples)
        video, number = match[1].lower(), int(match[2])
        named.append(replace(sample, source=SOURCE, video_id=video, frame_number=number))
    return named
