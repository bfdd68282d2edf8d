"""The videos that FP32 training does not see: chosen in one place and recorded in the run folder.

``held_out.json`` has two sorted lists of groups. Temperature and operating points come from ``calibration``,
early stopping is judged on ``stopping``. A group is a ``video_id``, or the stem of a file without one. Both
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
from capsule_edge.runtime.errors import InputError

from .folds import fold_of
from .frames import TrainingFrames, videos_of
from .transplants import made_of

__all__ = ["HeldOut", "choose", "held_out_rows", "read", "rows_to_fit"]

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


def choose(frames: TrainingFrames, *, calibrate: bool, stop: bool) -> HeldOut:
    """Choose a sixth of the videos for calibration and another sixth for early stopping, stratified by label.

    Args:
        frames: the real frames.
        calibrate: whether to hold videos out for calibration.
        stop: whether to hold videos out for early stopping.

    Raises:
        InputError: there are too few videos.
    """
    if not calibrate and not stop:
        return HeldOut()
    try:
        fold = fold_of(frames, FOLDS)
    except InputError as error:
        if stop:
            raise
        raise InputError(
            error.message, hint="add videos, or calibrate on out-of-fold answers: --calibrate-on FILE"
        ) from None
    groups = [tuple(sorted(set(frames.videos[fold == number].tolist()))) for number in (0, 1)]
    return HeldOut(groups[0] if calibrate else (), groups[1] if stop else ())


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
