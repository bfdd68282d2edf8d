"""Read a folder of labelled recordings: videos, the truth table of each, and the split of each.

A recording ``exam.mp4`` has its truth in ``exam.truth.csv`` (``truth_table``). If the folder has an ``index.csv``
(``file[,split,video_id,labels]``), the recordings are those that it lists. Otherwise they are the videos that have a
truth table. A recording belongs to the video that ``video_id`` names, or else to the video of its own name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from capsule_edge.runtime.errors import InputError, UsageError
from capsule_edge.runtime.inference import Label
from capsule_edge.runtime.recording import hash_recording, list_folder

from ..datasets import FileFinder, LabelKeys, LabelMapping, read_label_map, read_rows, split_name
from .truth_table import TRUTH_SUFFIX, TruthRow, read_truth, truth_of

__all__ = ["LabelledRecording", "LabelledRecordings", "check_several_videos", "load_recordings"]

INDEX = "index.csv"
TRAINING_SPLIT, ALL = "train", "all"
_INDEX_HINT = "its columns are file,split,video_id,labels; only file is required"


@dataclass(frozen=True)
class LabelledRecording:
    """One recording with its truth.

    Attributes:
        video: The recording: a video file, or a file or folder that ``scan`` reads.
        truth: The truth table.
        rows: The labelled frames, by rising index.
        video_id: The video that the recording belongs to.
        split: The split that the index gives it; None where it gives none.
    """

    video: Path
    truth: Path
    rows: tuple[TruthRow, ...]
    video_id: str
    split: str | None = None


@dataclass(frozen=True)
class LabelledRecordings:
    """The labelled recordings of one split of a folder.

    Attributes:
        folder: The folder.
        recordings: The recordings, in the order of the index or of their names.
        classes: Key, display name and role of each class of the whole folder, sorted by key, so that all splits
            share one order.
        split: The split; None for all recordings.
        stated_roles: The keys whose role a label map states.
        kept_videos: The videos that the folder keeps for another split than ``split``: nothing of them may be drawn.
    """

    folder: Path
    recordings: tuple[LabelledRecording, ...]
    classes: tuple[Label, ...]
    split: str | None = None
    stated_roles: frozenset[str] = frozenset()
    kept_videos: frozenset[str] = frozenset()

    @property
    def labels(self) -> tuple[str, ...]:
        """The sorted label keys of the whole folder."""
        return tuple(label.key for label in self.classes)

    @property
    def frames(self) -> int:
        """The number of labelled frames."""
        return sum(len(recording.rows) for recording in self.recordings)

    @property
    def videos(self) -> tuple[str, ...]:
        """The sorted video ids."""
        return tuple(sorted({recording.video_id for recording in self.recordings}))

    @cached_property
    def sha256(self) -> str:
        """The SHA-256 over the recordings: their files, videos, labels and splits.

        Raises:
            InputError: A recording cannot be read.
        """
        whole = hashlib.sha256()
        for each in self.recordings:
            facts = (each.video.name, hash_recording(each.video), each.video_id, each.split)
            rows = [(row.index, row.label, row.frame_number) for row in each.rows]
            whole.update(repr((facts, rows)).encode())
        return whole.hexdigest()

    def without(self, videos: Collection[str]) -> LabelledRecordings:
        """Return the recordings that are of none of the videos.

        Raises:
            InputError: No recording is left.
        """
        left = tuple(recording for recording in self.recordings if recording.video_id not in videos)
        if not left:
            raise InputError(
                f"every recording of {self.folder} is of a video that the data set keeps for another split",
                hint="add recordings of other videos, or leave --recordings out",
            )
        return replace(self, recordings=left)


def load_recordings(
    folder: str | Path, *, split: str | None = None, label_map: str | Path | LabelMapping | None = None
) -> LabelledRecordings:
    """Read the labelled recordings of one split. No video is opened.

    Args:
        folder: The folder with the videos, their truth tables and, if there is one, ``index.csv``.
        split: The split to read; ``"all"`` is every recording. None is ``train``, or every recording if the folder
            names no splits.
        label_map: The label map, or its file; None: keys follow from the class names.

    Raises:
        InputError: The folder is missing, holds no labelled recording, or a table or file in it is missing, cannot be
            read or contradicts another one.
        UsageError: The folder has no such split.

    Example:
        >>> found = load_recordings("recordings")
        >>> found.recordings[0].video_id, len(found.recordings[0].rows)
    """
    root = Path(folder)
    if not root.is_dir():
        found = "a file" if root.exists() else "not there"
        raise InputError(
            f"the recordings {root} are {found}, a folder is needed",
            hint="name the folder with the videos and their truth tables (--recordings DIR)",
        )
    mapping = (
        label_map if isinstance(label_map, LabelMapping) or label_map is None else read_label_map(label_map)
    )
    keys = LabelKeys(mapping, whole=False)
    indexed = (root / INDEX).is_file()
    recordings = _indexed(root, keys, LabelKeys(mapping, whole=False)) if indexed else _found(root, keys)
    _check_splits(root, recordings)
    whole = LabelledRecordings(root, recordings, keys.classes(), stated_roles=keys.stated_roles())
    return _select(whole, split)


def check_several_videos(recordings: Sequence[LabelledRecording], folder: Path) -> None:
    """Check that one video can be held out and another one is left.

    Raises:
        InputError: All recordings are of one video.
    """
    videos = {recording.video_id for recording in recordings}
    if len(videos) < 2:
        named = f"the video {videos.pop()!r}" if videos else "no video"
        raise InputError(
            f"the recordings of {folder} ({len(recordings)}) are all of {named}, so no other video can be held out",
            hint="add recordings of other videos",
        )


def _indexed(root: Path, keys: LabelKeys, listed: LabelKeys) -> tuple[LabelledRecording, ...]:
    """Read the recordings that the index lists. ``listed`` turns the class names of the index into keys."""
    index, finder = root / INDEX, FileFinder(root)
    recordings: list[LabelledRecording] = []
    lines: dict[Path, int] = {}
    for line, row in read_rows(index, ("file",), hint=_INDEX_HINT):
        where = f"{index} line {line}"
        if not row["file"]:
            raise InputError(f"{where} has no file", hint=_INDEX_HINT)
        video = finder.find(row["file"], where)
        if (earlier := lines.setdefault(video, line)) != line:
            raise InputError(f"{index} lines {earlier} and {line} list the same recording {row['file']}")
        if not video.exists():
            raise InputError(f"{where} lists the recording {video}, which is not there")
        recording = _read(video, keys, row.get("video_id") or video.stem, split_name(row.get("split")))
        recordings.append(recording)
        _check_listed_labels(where, row.get("labels", ""), recording, listed)
    if not recordings:
        raise InputError(f"{index} lists no recording", hint=_INDEX_HINT)
    return tuple(recordings)


def _found(root: Path, keys: LabelKeys) -> tuple[LabelledRecording, ...]:
    """Read the recordings of a folder without an index: the videos with a truth table."""
    videos = [video for video in list_folder(root).recordings if truth_of(video).is_file()]
    owned: dict[Path, Path] = {}
    for video in videos:
        if (other := owned.setdefault(truth_of(video), video)) is not video:
            raise InputError(
                f"{truth_of(video)} may be the truth of {other.name} and of {video.name}",
                hint="rename one of the two videos",
            )
    for truth in sorted(root.glob(f"*{TRUTH_SUFFIX}")):
        if truth not in owned and not truth.name.startswith("."):
            raise InputError(
                f"{truth} has no recording beside it",
                hint=f"name the video like its truth table: exam.mp4 and exam{TRUTH_SUFFIX}",
            )
    if not videos:
        raise InputError(
            f"{root} holds no recording with a truth table",
            hint=f"put exam{TRUTH_SUFFIX} (index,frame_number,time_s,label) beside exam.mp4",
        )
    return tuple(_read(video, keys, video.stem, None) for video in videos)


def _read(video: Path, keys: LabelKeys, video_id: str, split: str | None) -> LabelledRecording:
    truth = truth_of(video)
    if not truth.is_file():
        raise InputError(
            f"{video} has no truth table {truth.name} beside it", hint="leave it out of the index"
        )
    excluded = keys.excluded
    rows = sorted(read_truth(truth, keys), key=lambda row: row.index)
    if not rows and keys.excluded == excluded:
        raise InputError(f"{truth} labels no frame", hint="leave the recording out")
    return LabelledRecording(video, truth, tuple(rows), video_id, split)


def _check_listed_labels(where: str, names: str, recording: LabelledRecording, keys: LabelKeys) -> None:
    """Refuse a class that the index lists for a recording without such a frame."""
    there = {row.label for row in recording.rows}
    for name in filter(None, (part.strip() for part in names.split(";"))):
        key = keys.key_of(name, where)
        if key is not None and key not in there:
            raise InputError(
                f"{where} lists the class {name!r}, which no frame of {recording.truth.name} has: it has "
                f"{', '.join(sorted(there)) or 'none'}",
                hint="correct the column labels or the truth table",
            )


def _check_splits(root: Path, recordings: Sequence[LabelledRecording]) -> None:
    """Refuse recordings of one video in two splits."""
    first: dict[str, LabelledRecording] = {}
    for each in recordings:
        other = first.setdefault(each.video_id, each)
        if other.split != each.split:
            raise InputError(
                f"{root / INDEX} puts the video {each.video_id!r} into the splits {other.split!r} "
                f"({other.video.name}) and {each.split!r} ({each.video.name})",
                hint="put all recordings of a video into one split",
            )


def _select(whole: LabelledRecordings, split: str | None) -> LabelledRecordings:
    there = sorted({recording.split for recording in whole.recordings if recording.split})
    if split == ALL or (split is None and not there):
        return whole
    wanted = split or TRAINING_SPLIT
    chosen = tuple(recording for recording in whole.recordings if recording.split == wanted)
    if not chosen:
        known = f"it has {', '.join(there)}" if there else "it names no splits"
        raise UsageError(
            f"the folder {whole.folder} has no recording of the split {wanted!r}, {known}",
            hint=f"the column split of {INDEX} says which recordings are drawn",
        )
    kept = {recording.video_id for recording in whole.recordings if recording.split not in (None, wanted)}
    return replace(whole, recordings=chosen, split=wanted, kept_videos=frozenset(kept))
