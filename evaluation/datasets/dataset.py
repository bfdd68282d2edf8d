"""Read labelled frames from a folder, with a ``labels.csv`` or with one folder for each class.

Frames of one video are near copies of each other. Everything that draws or resamples frames (folds, bootstraps)
therefore draws whole videos, by ``video_id``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from capsule_edge.runtime.errors import InputError, UsageError
from capsule_edge.runtime.inference import Label

from . import published
from .class_folders import ClassFolders
from .label_keys import SYNONYMS, LabelKeys, known_role, label_key
from .label_map import LabelMapping, read_label_map
from .label_table import COLUMNS, LabelTable
from .samples import ListingRemark, Sample, listed, read_frame

__all__ = [
    "ALL",
    "SYNONYMS",
    "Dataset",
    "Listing",
    "Sample",
    "VideoIds",
    "describe",
    "hash_dataset",
    "label_key",
    "list_samples",
    "load_dataset",
    "load_training",
    "name_below",
    "read_frame",
    "videos_kept_from",
    "without_videos",
]

ALL = "all"
"""The name of the split that stands for every row."""

DEFAULT_SPLIT, TRAINING_SPLIT = "val", "train"


@dataclass(frozen=True)
class VideoIds:
    """The origin of the video ids of frames.

    Attributes:
        kind: ``given`` if a table states all that there are, ``inferred`` if some were taken from file names, ``none``
            if no frame has one.
        given: Number of frames with a video id that a table states.
        inferred: Number of frames whose video id was taken from the file's name.
        unknown: Number of frames without a video id.
    """

    kind: Literal["given", "inferred", "none"]
    given: int
    inferred: int
    unknown: int


@dataclass(frozen=True)
class Dataset:
    """The labelled frames of one split.

    Attributes:
        samples: The frames.
        labels: The sorted label keys of the whole data set, so that all splits share one order.
        root: The folder of the data set.
        split: The name of the split; None for every row.
        doubtful: Files of the whole data set that were left out because they are listed under two labels.
        described: Key, display name and role of each of ``labels``, in the same order.
        stated_roles: The keys whose role a label map states.
        remarks: What the reader found in the whole data set and did about it.
    """

    samples: tuple[Sample, ...]
    labels: tuple[str, ...]
    root: Path = Path()
    split: str | None = None
    doubtful: tuple[Path, ...] = ()
    described: tuple[Label, ...] = ()
    stated_roles: frozenset[str] = frozenset()
    remarks: tuple[ListingRemark, ...] = ()

    @property
    def classes(self) -> tuple[Label, ...]:
        """Key, display name and role of each of ``labels``: as ``described``, or by the rule for known keys."""
        described = {label.key: label for label in self.described}
        return tuple(
            described.get(key) or Label(key, key.replace("_", " ").capitalize(), known_role(key))
            for key in self.labels
        )

    @property
    def video_ids(self) -> VideoIds:
        """Return the origin of the video ids of the samples."""
        return count_video_ids(self.samples)

    def name_of(self, sample: Sample) -> str:
        """Return the sample's file relative to the data set, with forward slashes on every system."""
        return name_below(self.root, sample.file)

    def take(self, indices: Iterable[int]) -> Dataset:
        """Return a data set of the samples at ``indices``, in that order."""
        return replace(self, samples=tuple(self.samples[int(i)] for i in indices))


def without_videos(dataset: Dataset, videos: Collection[str]) -> Dataset:
    """Return a data set without the samples of these videos."""
    return dataset.take(i for i, sample in enumerate(dataset.samples) if sample.video_id not in videos)


def count_video_ids(samples: Sequence[Sample]) -> VideoIds:
    """Count the samples whose video id is given, inferred from the file's name, or unknown."""
    unknown = sum(sample.video_id is None for sample in samples)
    inferred = sum(sample.video_inferred for sample in samples)
    kind: Literal["given", "inferred", "none"] = "inferred" if inferred else "given"
    return VideoIds(
        "none" if unknown == len(samples) else kind, len(samples) - unknown - inferred, inferred, unknown
    )


def load_dataset(
    path: str | Path, *, split: str | None = None, label_map: str | Path | LabelMapping | None = None
) -> Dataset:
    """Read one split of a data set.

    Layouts:

    - a ``labels.csv`` with the columns ``file,label[,source,video_id,frame_number,split]``;
    - one folder for each class, directly below ``path``, below folders named as splits (``train/polyp/x.jpg``), or
      below one single folder, as Kvasir v2 unpacks;
    - Kvasir-Capsule as published, with ``metadata.csv``; its splits are ``split_0`` and ``split_1``.

    Args:
        path: The folder of the data set.
        split: The split to read; ``"all"`` is every row. None is ``val``, or every row if no row has that split.
        label_map: The label map, or its file (``read_label_map``); None: keys follow from the names (``label_key``).

    Raises:
        InputError: The folder is missing, empty or in none of the layouts, a column or file is missing, a row cannot
            be read, or two class names would become one key.
        UsageError: The data set has no such split.

    Example:
        >>> dataset = load_dataset("capsule-vision", split="val")
        >>> dataset.samples[0].label, dataset.samples[0].video_id
    """
    listing = list_samples(path, label_map=label_map)
    samples, table = listing.samples, listing.table
    if listing.empty_classes:
        raise InputError(
            f"the class folder {listing.empty_classes[0]} holds no image",
            hint="remove it or put images into it: an empty class cannot be measured",
        )
    _check_files(samples, table)
    doubtful = published.conflicting(samples)
    labels = tuple(sorted({sample.label for sample in samples}))
    kept = tuple(sample for sample in samples if sample.file not in doubtful)
    if not kept:
        raise InputError(f"every frame of {table} is listed under two labels")
    whole = Dataset(
        kept,
        labels,
        listing.root,
        doubtful=tuple(sorted(doubtful)),
        described=listing.classes,
        stated_roles=listing.stated_roles,
        remarks=listing.remarks,
    )
    return _select(whole, split)


def load_training(
    path: str | Path, *, split: str | None = None, label_map: str | Path | LabelMapping | None = None
) -> Dataset:
    """Read one split as ``load_dataset`` does, but None is ``train``, or every row if the data set names no splits."""
    if split is None and any(s.split for s in list_samples(path, label_map=label_map).samples):
        split = TRAINING_SPLIT
    return load_dataset(path, split=split or ALL, label_map=label_map)


def videos_kept_from(
    path: str | Path, split: str | None, *, label_map: str | Path | LabelMapping | None = None
) -> frozenset[str]:
    """Return the videos that a data set names in another split than ``split``; none where it is None.

    Training must not draw these videos from another source either.

    Raises:
        InputError: As ``list_samples``.
    """
    if split is None:
        return frozenset()
    samples = list_samples(path, label_map=label_map).samples
    return frozenset(s.video_id for s in samples if s.video_id and s.split not in (None, split))


@dataclass(frozen=True)
class Listing:
    """All rows of a data set, unchecked: a file may be missing, or listed under two labels.

    Attributes:
        samples: One sample for each row. Repeated rows count once, and excluded classes are left out.
        root: The folder of the data set.
        table: The table that lists the rows, or the folder that holds the class folders.
        empty_classes: Class folders without an image.
        classes: Key, display name and role of each class, sorted by key.
        stated_roles: The keys whose role the label map states.
        remarks: What the reader found and did about it.
    """

    samples: tuple[Sample, ...]
    root: Path
    table: Path
    empty_classes: tuple[Path, ...] = ()
    classes: tuple[Label, ...] = ()
    stated_roles: frozenset[str] = frozenset()
    remarks: tuple[ListingRemark, ...] = ()

    @property
    def video_ids(self) -> VideoIds:
        """Return the origin of the video ids of the samples."""
        return count_video_ids(self.samples)


def name_below(root: Path, file: Path) -> str:
    """Return ``file`` with forward slashes, relative to ``root`` if it lies below it."""
    try:
        return file.relative_to(root).as_posix()
    except ValueError:
        return file.as_posix()


def list_samples(path: str | Path, *, label_map: str | Path | LabelMapping | None = None) -> Listing:
    """List every row of a data set in any layout that ``load_dataset`` reads, without opening a picture.

    Args:
        path: The folder of the data set.
        label_map: The label map, or its file; None: keys follow from the names.

    Raises:
        InputError: The folder is missing, empty or in none of the layouts, its table or the label map cannot be read,
            or two class names would become one key.
    """
    root = Path(path)
    if not root.is_dir():
        found = "a file" if root.exists() else "not there"
        raise InputError(
            f"the data set {root} is {found}, a folder is needed",
            hint="name the data set's folder (--data DIR)",
        )
    labels = (
        label_map if isinstance(label_map, LabelMapping) or label_map is None else read_label_map(label_map)
    )
    table = root / "labels.csv"
    keys = LabelKeys(labels, published=not table.is_file() and published.is_kvasir_capsule(root))
    try:
        listing = _read(root, table, keys)
    except OSError as error:
        raise InputError(f"{error.filename or root} cannot be read: {error.strerror or error}") from None
    _check_any(listing.samples, listing.table, keys)
    remarks = (*listing.remarks, *_remarks(listing.samples, keys, labels))
    return replace(listing, classes=keys.classes(), stated_roles=keys.stated_roles(), remarks=remarks)


def _read(root: Path, table: Path, keys: LabelKeys) -> Listing:
    """Read the rows of a data set in the layout that it has."""
    if table.is_file():
        rows = LabelTable(root, table, keys)
        return Listing(tuple(rows.samples()), root, table, remarks=tuple(rows.remarks()))
    if keys.published:
        return Listing(tuple(published.kvasir_capsule(root, keys)), root, root / "metadata.csv")
    folders = ClassFolders(root)
    samples = tuple(_from_folders(folders, keys))
    return Listing(samples, root, root, tuple(folders.empty), remarks=tuple(folders.remarks()))


def _check_any(samples: Sequence[Sample], table: Path, keys: LabelKeys) -> None:
    if not samples and keys.excluded:
        raise InputError(f"the label map excludes all {keys.excluded} frames of {table}")
    if not samples:
        raise InputError(f"{table} has a header and no rows", hint=f"its columns are {COLUMNS}")


def _from_folders(folders: ClassFolders, keys: LabelKeys) -> list[Sample]:
    found = (
        (file, keys.key_of(name, f"the folder {file.parent}"), split)
        for file, name, split in folders.pictures()
    )
    samples = [
        Sample(file=file, label=label, split=split) for file, label, split in found if label is not None
    ]
    return published.kvasir_capsule_video(samples)


def _remarks(samples: Sequence[Sample], keys: LabelKeys, labels: LabelMapping | None) -> list[ListingRemark]:
    """Return the remarks on video ids taken from file names, and on the label map."""
    found = []
    inferred = count_video_ids(samples).inferred
    if inferred:
        what = f"the video ids of {inferred} of {len(samples)} frames are inferred from file names of Kvasir-Capsule"
        found.append(ListingRemark("inferred_videos", inferred, what))
    if keys.excluded:
        what = f"{keys.excluded} frames are left out, because the label map excludes their classes"
        found.append(ListingRemark("excluded_frames", keys.excluded, what))
    unused = keys.unused()
    if unused and labels is not None:
        what = (
            f"{labels.path.name} lists {len(unused)} names that the data set does not have ({listed(unused)})"
        )
        found.append(ListingRemark("unused_names", len(unused), what, unused))
    return found


def _select(dataset: Dataset, split: str | None) -> Dataset:
    there = sorted({sample.split for sample in dataset.samples if sample.split})
    if split == ALL or (split is None and DEFAULT_SPLIT not in there):
        return dataset
    wanted = DEFAULT_SPLIT if split is None else split
    if wanted not in there:
        known = f"it has {', '.join(there)}" if there else "it names no splits"
        raise UsageError(
            f"the data set {dataset.root} has no split {wanted!r}, {known}",
            hint="--split all takes every row",
        )
    chosen = tuple(sample for sample in dataset.samples if sample.split == wanted)
    return replace(dataset, samples=chosen, split=wanted)


def _check_files(samples: Sequence[Sample], table: Path) -> None:
    missing = [sample for sample in samples if not sample.file.is_file()]
    if missing:
        line = f" (line {missing[0].line})" if missing[0].line is not None else ""
        raise InputError(
            f"{len(missing)} of {len(samples)} files that {table} names do not exist, the first is "
            f"{missing[0].file}{line}",
            hint="copy the frames to that place or remove their rows",
        )


def hash_dataset(dataset: Dataset) -> str:
    """Return the SHA-256 (hexadecimal) over the names, labels, videos and bytes of the frames, in any order."""
    lines = []
    for sample in dataset.samples:
        content = hashlib.sha256(sample.file.read_bytes()).hexdigest() if sample.file.is_file() else ""
        lines.append(f"{dataset.name_of(sample)}\t{sample.label}\t{sample.video_id or ''}\t{content}\n")
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()


def describe(dataset: Dataset) -> dict[str, str | None]:
    """Identify a data set in a report: the folder's ``name``, ``sha256`` and ``split`` (None is every row)."""
    return {"name": dataset.root.resolve().name, "sha256": hash_dataset(dataset), "split": dataset.split}
