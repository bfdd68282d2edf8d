"""The videos that a run's FP32 fit does not see: chosen in one place, and written into the RUN for whoever asks later.

``held_out.json`` has ``calibration`` (temperature and operating points come from these) and ``stopping`` (early
stopping is judged on these), each a sorted list of groups: a ``video_id``, or a file's stem where none is named. Both
are empty where the run was calibrated on answers from elsewhere; a run whose FP32 fit came from elsewhere has no file.
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

from ..gpu import fold_of
from .frames import Frames, videos_of

__all__ = ["HeldOut", "choose", "held_out_rows", "read"]

FOLDS = 6
FILE = "held_out.json"


@dataclass(frozen=True)
class HeldOut:
    """Groups of frames that the fit does not see."""

    calibration: tuple[str, ...] = ()
    stopping: tuple[str, ...] = ()

    def write(self, run: Path) -> None:
        """Into the RUN folder, whole or not at all. Raises ``OutputError``."""
        write_text(run / FILE, json.dumps(asdict(self), ensure_ascii=False, indent=1) + "\n")


def choose(frames: Frames, *, calibrate: bool, stop: bool) -> HeldOut:
    """A sixth of the videos to calibrate on and another to stop early by, where they are asked for, by label.

    Raises ``InputError`` for too few videos.
    """
    if not calibrate and not stop:
        return HeldOut()
    try:
        fold = fold_of(frames, FOLDS)
    except InputError as error:
        if stop:
            raise
        raise InputError(
            error.message, hint="more videos, or answers from elsewhere: --calibrate-on"
        ) from None
    groups = [tuple(sorted(set(frames.videos[fold == number].tolist()))) for number in (0, 1)]
    return HeldOut(groups[0] if calibrate else (), groups[1] if stop else ())


def read(run: Path) -> HeldOut | None:
    """What a RUN folder says, None where it says nothing. Raises ``InputError`` for a file that is damaged."""
    path = run / FILE
    try:
        document = json.loads(path.read_text("utf-8"))
        return HeldOut(*(tuple(map(str, document[name])) for name in ("calibration", "stopping")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} does not name the videos held out: {error}") from None


def held_out_rows(run: Path, dataset: Dataset) -> npt.NDArray[np.intp] | None:
    """The rows of ``dataset`` that the run calibrated on; None where it held none out, or does not say.

    Raises ``InputError`` where it did and the data set has none of them.
    """
    held = read(run)
    if held is None or not held.calibration:
        return None
    rows = np.flatnonzero(np.isin(videos_of(dataset), held.calibration))
    if not len(rows):
        raise InputError(
            f"none of the {len(held.calibration)} videos that {run} held out is in {dataset.root}",
            hint="give the data that it was trained on",
        )
    return rows
