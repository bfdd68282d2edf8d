"""The videos that FP32 training does not see: chosen in one place and recorded in the run folder.

``held_out.json`` has two sorted lists of groups. Temperature and operating points come from ``calibration``,
early stopping is judged on ``stopping``. A group is a ``video_id``, or the stem of a file without one if frames
were held out one by one. Both
lists are empty if the run was calibrated on answers from elsewhere. A run whose FP32 weights came from
elsewhere has no such file.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from capsule_edge.evaluation._files import write_text
from capsule_edge.evaluation.datasets import Dataset
from capsule_edge.runtime.errors import InputError, UsageError
from capsule_edge.runtime.inference import HeldOutBy

from .folds import fold_of
from .frames import TrainingFrames, videos_of
from .transplants import made_of

__all__ = [
    "HeldOut",
    "choose",
    "held_out_by",
    "held_out_rows",
    "named_videos",
    "read",
    "rows_to_fit",
    "warn_of_patients",
]

FOLDS = 6
FILE = "held_out.json"


@dataclass(frozen=True)
class HeldOut:
    """Groups of frames that FP32 training does not see."""

    calibration: tuple[str, ...] = ()
    stopping: tuple[str, ...] = ()

    def write(self, run: Path) -> None:
        """Write the groups into a run folder, whole or not at all.

        Raises:
            OutputError: the file cannot be written.
        """
        write_text(run / FILE, json.dumps(asdict(self), ensure_ascii=False, indent=1) + "\n")


def named_videos(dataset: Dataset) -> set[str]:
    """Return the videos that the frames of a data set name."""
    return {sample.video_id for sample in dataset.samples if sample.video_id is not None}


def held_out_by(dataset: Dataset, *, leak_patients: bool) -> HeldOutBy:
    """Return the unit by which a run on ``dataset`` holds frames out.

    Args:
        dataset: the training data.
        leak_patients: hold frames out one by one where they name no video.

    Returns:
        ``video`` if every frame names its video. ``frame`` with ``leak_patients``. ``unknown`` if some frames name no
        video: these are never held out, but they may be of a video that is.

    Raises:
        UsageError: no frame names its video, and ``leak_patients`` is False.
    """
    named = sum(sample.video_id is not None for sample in dataset.samples)
    if named == len(dataset.samples):
        return HeldOutBy("video")
    if leak_patients:
        return HeldOutBy("frame")
    if not named:
        raise UsageError(
            f"none of the {_count(dataset)} of {dataset.root} names its video, so no patient can be held out to"
            " calibrate the model on",
            hint="name the videos in labels.csv (column video_id), or accept figures that do not hold for other"
            " patients: --frames-leak-patients",
        )
    return HeldOutBy("unknown")


def warn_of_patients(dataset: Dataset, by: HeldOutBy) -> str:
    """Return the warning that goes with ``held_out_by``; empty if every frame names its video."""
    nameless = sum(sample.video_id is None for sample in dataset.samples)
    if not nameless:
        return ""
    count = f"{nameless:,} of {_count(dataset)} name no video, so their patients are unknown"
    if by.by == "frame":
        return (
            f"{count}. Temperature and operating points come from frames held out one by one: they may be of the"
            " patients trained on, and say nothing of other patients"
        )
    return f"{count}. They are trained on and never held out, but may be of the patients held out"


def _count(dataset: Dataset) -> str:
    """Return the number of frames in words."""
    return f"{len(dataset.samples):,} frame{'s' * (len(dataset.samples) != 1)}"


def choose(frames: TrainingFrames, *, calibrate: bool, stop: bool, among: set[str] | None = None) -> HeldOut:
    """Choose a sixth of the videos for calibration and another sixth for early stopping, stratified by label.

    With few videos the sixths differ much, and a model judged on one class says little. So these are the two whose
    shares of the labels are closest to those of all frames, the closest for calibration.

    Args:
        frames: the real frames.
        calibrate: whether to hold videos out for calibration.
        stop: whether to hold videos out for early stopping.
        among: the groups that may be held out; None allows all.

    Raises:
        InputError: there are too few videos.
    """
    if not calibrate and not stop:
        return HeldOut()
    frames = frames.without_pixels()
    if among is not None:
        frames = frames.take(np.flatnonzero(np.isin(frames.videos, sorted(among))))
    try:
        fold = fold_of(frames, FOLDS)
    except InputError as error:
        if stop:
            raise
        raise InputError(
            error.message, hint="add videos, or calibrate on out-of-fold answers: --calibrate-on FILE"
        ) from None
    groups = [
        tuple(sorted(set(frames.videos[fold == number].tolist())))
        for number in _most_alike(frames.labels, fold)
    ]
    return HeldOut(groups[0] if calibrate else (), groups[1] if stop else ())


def _most_alike(labels: npt.NDArray[np.integer], fold: npt.NDArray[np.int64]) -> list[int]:
    """Return the folds, beginning with the one whose label shares differ least from those of all frames."""

    def shares(chosen: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
        counts = np.bincount(labels[chosen], minlength=int(labels.max()) + 1)
        return np.asarray(counts / chosen.sum(), np.float64)

    whole = shares(np.ones(len(labels), np.bool_))
    return sorted(range(FOLDS), key=lambda number: float(np.abs(shares(fold == number) - whole).sum()))


def rows_to_fit(frames: TrainingFrames, held: HeldOut) -> npt.NDArray[np.bool_]:
    """Return which frames FP32 training may draw, bool (N,).

    It may draw neither frames of held-out videos nor transplants that were made from these videos.
    """
    groups = [*held.calibration, *held.stopping]
    return np.asarray(~np.isin(frames.videos, groups) & ~made_of(frames.videos, groups))


def read(run: Path) -> HeldOut | None:
    """Return the groups that a run folder records, or None if it records none.

    Raises:
        InputError: the file is damaged.
    """
    path = run / FILE
    try:
        document = json.loads(path.read_text("utf-8"))
        return HeldOut(*(tuple(map(str, document[name])) for name in ("calibration", "stopping")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} does not name the videos held out: {error}") from None


def held_out_rows(run: Path, dataset: Dataset) -> npt.NDArray[np.intp] | None:
    """Return the rows of ``dataset`` that a run was calibrated on.

    Args:
        run: the run folder.
        dataset: the data set that the run was trained on.

    Returns:
        int (n,), or None if the run held out no video for calibration or does not record it.

    Raises:
        InputError: ``dataset`` has none of the recorded videos, or the record is damaged.
    """
    held = read(run)
    if held is None or not held.calibration:
        return None
    rows = np.flatnonzero(np.isin(videos_of(dataset), held.calibration))
    if not len(rows):
        raise InputError(
            f"none of the {len(held.calibration)} videos that {run} held out is in {dataset.root}",
            hint="name the data set that the run was trained on",
        )
    return rows
