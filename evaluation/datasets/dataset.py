"""Read labelled frames from a folder, with a ``labels.csv`` or with one folder for each class.

Frames of one video are near copies of each other. Everything that draws or resamples frames (folds, bootstraps)
therefore draws whole videos, by ``video_id``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from capsule_edge.runtime.errors import InputError, UsageError
from capsule_edge.runtime.recording import is_hidden

from . import published
from .samples import IMAGE_SUFFIXES, SYNONYMS, Sample, label_key, read_frame, read_rows

__all__ = [
    "ALL",
    "SYNONYMS",
    "Dataset",
    "Listing",
    "Sample",
    "describe",
    "hash_dataset",
    "label_key",
    "list_samples",
    "load_dataset",
    "load_training",
    "name_below",
    "read_frame",
]

ALL = "all"
"""The name of the split that stands for every row."""

DEFAULT_SPLIT, TRAINING_SPLIT = "val", "train"

_SPLITS = {"training": "train", "valid": "val", "validation": "val"}
_SPLIT_FOLDERS = {"train", "val", "test", *_SPLITS}
_COLUMNS = "file,label,source,video_id,frame_number,split"


@dataclass(frozen=True)
class Dataset:
    """The labelled frames of one split.

    Attributes:
        samples: The frames.
        labels: The sorted label keys of the whole data set, so that all splits share one order.
        root: The folder of the data set.
        split: The name of the split; None for every row.
        doubtful: Files of the whole data set that were left out because they are listed under two labels.
    """

    samples: tuple[Sample, ...]
    labels: tuple[str, ...]
    root: Path = Path()
    split: str | None = None
    doubtful: tuple[Path, ...] = ()

    def name_of(self, sample: Sample) -> str:
        """Return the sample's file relative to the data set, with forward slashes on every system."""
        return name_below(self.root, sample.file)

    def take(self, indices: Iterable[int]) -> Dataset:
        """Return a data set of the samples at ``indices``, in that order."""
        return replace(self, samples=tuple(self.samples[int(i)] for i in indices))


def load_dataset(path: str | Path, *, split: str | None = None) -> Dataset:
    """Read one split of a data set.

    Layouts:

    - a ``labels.csv`` with the columns ``file,label[,source,video_id,frame_number,split]``;
    - one folder for each class, directly below ``path``, below folders named as splits (``train/polyp/x.jpg``), or
      below one single folder, as Kvasir v2 unpacks;
    - Kvasir-Capsule as published, with ``metadata.csv``; its splits are ``split_0`` and ``split_1``.

    Args:
        path: The folder of the data set.
        split: The split to read; ``"all"`` is every row. None is ``val``, or every row if no row has that split.

    Raises:
        InputError: The folder is missing, empty or in none of the layouts, or a column or file is missing.
        UsageError: The data set has no such split.

    Example:
        >>> dataset = load_dataset("capsule-vision", split="val")
        >>> dataset.samples[0].label, dataset.samples[0].video_id
    """
    listing = list_samples(path)
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
    return _select(Dataset(kept, labels, listing.root, doubtful=tuple(sorted(doubtful))), split)


def load_training(path: str | Path, *, split: str | None = None) -> Dataset:
    """Read one split as ``load_dataset`` does, but None is ``train``, or every row if the data set names no splits."""
    if split is None and any(sample.split for sample in list_samples(path).samples):
        split = TRAINING_SPLIT
    return load_dataset(path, split=split or ALL)


@dataclass(frozen=True)
class Listing:
    """All rows of a data set, unchecked: a file may be missing, or listed under two labels.

    Attributes:
        samples: One sample for each row.
        root: The folder of the data set.
        table: The table that lists the rows, or the folder that holds the class folders.
        empty_classes: Class folders without an image.
    """

    samples: tuple[Sample, ...]
    root: Path
    table: Path
    empty_classes: tuple[Path, ...] = ()


def name_below(root: Path, file: Path) -> str:
    """Return ``file`` with forward slashes, relative to ``root`` if it lies below it."""
    try:
        return file.relative_to(root).as_posix()
    except ValueError:
        return file.as_posix()


def list_samples(path: str | Path) -> Listing:
    """List every row of a data set in any layout that ``load_dataset`` reads, without opening a picture.

    Raises:
        InputError: The folder is missing, empty or in none of the layouts, or its table cannot be read.
    """
    root = Path(path)
    if not root.is_dir():
        found = "a file" if root.exists() else "not there"
        raise InputError(
            f"the data set {root} is {found}, a folder is needed",
            hint="name the data set's folder (--data DIR)",
        )
    table = root / "labels.csv"
    empty: list[Path] = []
    if table.is_file():
        samples = _from_table(root, table)
    elif published.is_kvasir_capsule(root):
        samples, table = published.kvasir_capsule(root), root / "metadata.csv"
    else:
        samples, table = published.kvasir_capsule_video(list(_from_folders(root, empty))), root
    if not samples:
        raise InputError(f"{table} has a header and no rows", hint=f"its columns are {_COLUMNS}")
    return Listing(tuple(samples), root, table, tuple(empty))


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


def _from_table(root: Path, table: Path) -> list[Sample]:
    hint = f"its columns are {_COLUMNS}; file and label are required"
    rows = read_rows(table, ("file", "label"), hint=hint)
    samples = [_sample(root, table, line, row) for line, row in rows]
    return samples


def _check_files(samples: Sequence[Sample], table: Path) -> None:
    missing = [sample.file for sample in samples if not sample.file.is_file()]
    if missing:
        raise InputError(
            f"{len(missing)} of {len(samples)} files that {table} names do not exist, the first is {missing[0]}",
            hint="copy the frames to that place or remove their rows",
        )


def _sample(root: Path, table: Path, line: int, cell: Mapping[str, str]) -> Sample:
    for column in ("file", "label"):
        if not cell[column]:
            raise InputError(
                f"{table} line {line} has no {column}", hint="every frame needs a file and a label"
            )
    number = cell.get("frame_number", "")
    if number and not number.isdecimal():
        raise InputError(
            f"{table} line {line}: frame_number is {number!r}, it must be a whole number or empty"
        )
    return Sample(
        file=root / cell["file"],
        label=label_key(cell["label"]),
        source=cell.get("source") or None,
        video_id=cell.get("video_id") or None,
        frame_number=int(number) if number else None,
        split=_split_name(cell.get("split")),
    )


def _from_folders(root: Path, empty: list[Path]) -> Iterator[Sample]:
    """Yield the samples of class folders; append folders without an image to ``empty``."""
    folders = _folders(root)
    if len(folders) == 1 and not _images(folders[0]) and any(_images(f) for f in _folders(folders[0])):
        folders = _folders(folders[0])
    splits = [folder for folder in folders if folder.name.lower() in _SPLIT_FOLDERS and _folders(folder)]
    below = [(folder.name, _folders(folder)) for folder in splits] if splits else [(None, folders)]
    classes = [(split, folder, _images(folder)) for split, inside in below for folder in inside]
    if not any(images for _, _, images in classes):
        raise InputError(
            f"{root} has no labels.csv and no class folders with images",
            hint=f"write labels.csv ({_COLUMNS}) or sort the frames into one folder for each class",
        )
    for split, folder, images in classes:
        if not images:
            empty.append(folder)
        for file in images:
            yield Sample(file=file, label=label_key(folder.name), split=_split_name(split))


def _split_name(name: str | None) -> str | None:
    """Return the common name of a split: ``Validation`` is ``val``."""
    return _SPLITS.get(name.lower(), name.lower()) if name else None


def _folders(parent: Path) -> list[Path]:
    # Archives packed on macOS hold a folder "__MACOSX".
    return sorted(
        p for p in parent.iterdir() if p.is_dir() and not is_hidden(p) and not p.name.startswith("__")
    )


def _images(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not is_hidden(p))


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
