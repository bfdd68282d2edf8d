"""Split a data set by video, so that a figure measured on one part holds for patients who are not in the other.

Frames of one video are near copies. A random split puts copies on both sides and turns a macro-F1 of about .3 on
unseen videos into .97. No function here divides the frames of a video, except ``split_leaking``.
"""

from __future__ import annotations

import csv
import io
import os
import warnings
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from capsule_edge.runtime.errors import InputError, OutputError, UsageError

from .._extras import require
from .._files import write_text
from .dataset import Dataset, Listing
from .published import OFFICIAL_SPLITS, conflicting
from .samples import Sample

__all__ = ["fold_of", "folds", "official", "rows_of", "split_by_video", "split_leaking", "write_labels"]

COLUMNS = ("file", "label", "source", "video_id", "frame_number", "split")


def fold_of(
    labels: npt.NDArray[Any], videos: npt.NDArray[np.str_], count: int, *, seed: int = 0
) -> npt.NDArray[np.int64]:
    """Assign each frame to a fold, stratified by label, with no video in two folds.

    Uses scikit-learn's StratifiedGroupKFold.

    Args:
        labels: (N,), the label of each frame, of any type.
        videos: str (N,), the video of each frame.
        count: The number of folds, at least 2.
        seed: The seed of the shuffling.

    Returns:
        The fold of each frame, int64 (N,) in 0..count - 1.

    Raises:
        UsageError: ``count`` is less than 2.
        InputError: There are fewer videos than folds, or no class has as many frames as there are folds.
    """
    if count < 2:
        raise UsageError(f"the number of folds is {count}, at least 2 are needed")
    require("sklearn")
    from sklearn.model_selection import StratifiedGroupKFold

    groups = len(set(videos.tolist()))
    most = max(Counter(labels.tolist()).values(), default=0)
    if groups < count or most < count:
        raise InputError(
            f"{len(labels)} frames of {groups} videos cannot be split into {count} folds by video",
            hint="use fewer folds or more videos",
        )
    fold = np.empty(len(labels), np.int64)
    splitter = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # It warns of a class with fewer frames than folds. The caller reports the counts.
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        for number, (_, held_out) in enumerate(splitter.split(labels, labels, videos)):
            fold[held_out] = number
    return fold


def folds(
    dataset: Dataset, count: int, seed: int = 0
) -> list[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]]:
    """Split a data set into folds with ``fold_of``.

    Returns:
        ``count`` pairs of (training, held-out) indices into ``dataset.samples``.

    Raises:
        InputError: A frame names no video, or the data cannot be split (``fold_of``).
        UsageError: ``count`` is less than 2.
    """
    fold = fold_of(*_columns(dataset.samples), count, seed=seed)
    return [(np.flatnonzero(fold != number), np.flatnonzero(fold == number)) for number in range(count)]


def rows_of(listing: Listing, split: str | None = None) -> list[Sample]:
    """Return the samples of a split, or of all rows for None, each file once.

    Files that are listed under two labels are left out. The pictures need not exist.

    Raises:
        UsageError: The data set has no such split.
    """
    there = sorted({sample.split for sample in listing.samples if sample.split})
    if split is not None and split not in there:
        known = f"it has {', '.join(there)}" if there else "it names no splits"
        raise UsageError(f"the data set {listing.root} has no split {split!r}, {known}")
    doubtful = conflicting(listing.samples)
    chosen = (s for s in listing.samples if s.file not in doubtful and (split is None or s.split == split))
    return list({sample.file: sample for sample in chosen}.values())


def split_by_video(
    samples: Sequence[Sample], count: int, *, held_out: int | None = None, seed: int = 0
) -> list[Sample]:
    """Split samples by video into ``count`` folds and write the fold into their ``split``.

    Args:
        samples: The samples.
        count: The number of folds.
        held_out: None: the splits are ``fold0``, ``fold1``... Otherwise this fold is ``val`` and the rest ``train``.
        seed: The seed of the shuffling.

    Raises:
        UsageError: ``held_out`` is not a fold, or ``count`` is less than 2.
        InputError: A frame names no video, or the data cannot be split (``fold_of``).
    """
    return _assigned(samples, fold_of(*_columns(samples), count, seed=seed), count, held_out)


def split_leaking(
    samples: Sequence[Sample], count: int, *, held_out: int | None = None, seed: int = 0
) -> list[Sample]:
    """Split samples as ``split_by_video`` does, but at random frame by frame.

    Frames of one video then lie on both sides. A figure measured on such a split says nothing about other patients.

    Raises:
        UsageError: There are fewer than 2 folds or fewer frames than folds, or ``held_out`` is not a fold.
    """
    if count < 2 or len(samples) < count:
        raise UsageError(
            f"{len(samples)} frames cannot fill {count} folds; 2 folds or more and a frame for each are needed"
        )
    fold = np.random.default_rng(seed).permutation(len(samples)) % count
    return _assigned(samples, fold, count, held_out)


def official(listing: Listing, how: Literal["published", "cleaned"]) -> list[Sample]:
    """Return the rows of Kvasir-Capsule's official splits.

    Args:
        listing: The rows of Kvasir-Capsule as published.
        how: ``published`` keeps the faults: files under two labels and videos on both sides. ``cleaned`` leaves out
            files that any table lists under two labels, and puts each shared video completely on the side that has
            more of its frames (on a tie, the first side).

    Raises:
        InputError: The data set has no official splits.
    """
    rows = [sample for sample in listing.samples if sample.split in OFFICIAL_SPLITS]
    if {sample.split for sample in rows} != set(OFFICIAL_SPLITS):
        raise InputError(
            f"{listing.root} has no official splits",
            hint="they are split_0.csv and split_1.csv beside Kvasir-Capsule's metadata.csv",
        )
    if how == "published":
        return rows
    doubtful = conflicting(listing.samples)
    kept = [sample for sample in rows if sample.file not in doubtful]
    sides: dict[str | None, Counter[str | None]] = defaultdict(Counter)
    for sample in kept:
        sides[sample.video_id][sample.split] += 1
    home = {video: max(sorted(count, key=str), key=count.__getitem__) for video, count in sides.items()}
    return [replace(s, split=home[s.video_id]) if s.video_id is not None else s for s in kept]


def write_labels(samples: Sequence[Sample], path: str | Path, *, overwrite: bool = False) -> None:
    """Write samples as ``labels.csv``, completely or not at all.

    Files are named relative to the table's folder, so that this folder is a data set.

    Args:
        samples: The samples to write.
        path: The table.
        overwrite: Replace an existing table.

    Raises:
        OutputError: The table exists and may not be replaced, or cannot be written.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise OutputError(f"{path} already exists", hint="choose another name or use --overwrite")
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(COLUMNS)
    for s in samples:
        number = "" if s.frame_number is None else s.frame_number
        name = _relative(s.file, path.parent)
        rows.writerow([name, s.label, s.source or "", s.video_id or "", number, s.split or ""])
    write_text(path, text.getvalue())


def _columns(samples: Sequence[Sample]) -> tuple[npt.NDArray[np.str_], npt.NDArray[np.str_]]:
    """Return the labels and the videos of the samples. Raise ``InputError`` if one names no video."""
    unknown = sum(sample.video_id is None for sample in samples)
    if unknown:
        raise InputError(
            f"{unknown} of {len(samples)} frames name no video_id, so folds by video cannot be made",
            hint="add the video_id of each frame to labels.csv",
        )
    return np.array([s.label for s in samples]), np.array([s.video_id for s in samples])


def _assigned(
    samples: Sequence[Sample], fold: npt.NDArray[np.int64], count: int, held_out: int | None
) -> list[Sample]:
    if held_out is not None and not 0 <= held_out < count:
        raise UsageError(f"the fold to hold out is {held_out}, allowed is 0 to {count - 1}")
    names = [
        f"fold{number}" if held_out is None else "val" if number == held_out else "train"
        for number in range(count)
    ]
    return [replace(sample, split=names[number]) for sample, number in zip(samples, fold, strict=True)]


def _relative(file: Path, folder: Path) -> str:
    try:
        return Path(os.path.relpath(file, folder)).as_posix()
    except ValueError:
        # On Windows no relative path leads from one drive to another.
        return file.resolve().as_posix()
