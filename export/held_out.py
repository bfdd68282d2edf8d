"""Find the frames on which an export makes its choices: of videos that training held out from fitting.

The frames that the certificates are measured on are never among them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from capsule_edge.evaluation.datasets import Dataset, folds, load_training
from capsule_edge.train.data import held_out

__all__ = ["frames_to_choose_on", "split_held_out"]

# Enough frames to rank layers and to judge the gates.
_FRAMES = 1500


def split_held_out(
    run: str | os.PathLike[str], dataset: Dataset, *, progress: Callable[[str], None] = lambda _: None
) -> tuple[Dataset, Dataset]:
    """Split training data into the videos that a RUN was trained on and those that it held out.

    A RUN may name no held-out videos. Then a sixth of the videos, split off as training does it, stands for
    them, although the model was trained on them; ``progress`` gets a line that says so.

    Args:
        run: The RUN folder.
        dataset: The training data.
        progress: Called with each line of progress.

    Returns:
        The training frames and the held-out frames.

    Raises:
        InputError: ``dataset`` contains none of the held-out videos, or names no videos where they are needed.
    """
    rows = held_out.held_out_rows(Path(run), dataset)
    if rows is None:
        progress(f"{run} names no videos held out: a sixth of those that it was trained on stands for them")
        rows = folds(dataset, held_out.FOLDS)[0][1]
    rest = np.setdiff1d(np.arange(len(dataset.samples)), rows)
    return dataset.take(rest), dataset.take(rows)


def frames_to_choose_on(
    run: str | os.PathLike[str],
    data: Path,
    *,
    label_map: Path | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Dataset:
    """Return about 1,500 frames at most of the videos that a RUN held out, evenly spaced.

    Args:
        run: The RUN folder.
        data: The data set that the RUN was trained on. Its split ``train`` is read, or all of it without splits.
        label_map: The label map with which the RUN read it.
        progress: Called with each line of progress.

    Raises:
        InputError: As for ``split_held_out``, and for data that cannot be read.
    """
    held = split_held_out(run, load_training(data, label_map=label_map), progress=progress)[1]
    return held.take(range(0, len(held.samples), max(1, len(held.samples) // _FRAMES)))
