"""The frames by which an export makes its choices: videos that the run held out, never those of the certificates."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from capsule_edge.evaluation.datasets import Dataset, folds, load_training
from capsule_edge.train.data import held_out

__all__ = ["frames_to_choose_on", "part"]

# Enough to judge layers by.
_FRAMES = 1500


def part(
    run: str | os.PathLike[str], dataset: Dataset, *, progress: Callable[[str], None] = lambda _: None
) -> tuple[Dataset, Dataset]:
    """The training's videos, and those that ``run`` calibrated on.

    A RUN that held none out, or does not say, is parted as training would have done it, and that is told: its videos
    were all seen. Raises ``InputError`` where ``dataset`` has none of the videos, or names none.
    """
    rows = held_out.held_out_rows(Path(run), dataset)
    if rows is None:
        progress(f"{run} names no videos held out: a sixth of those that it was trained on stands for them")
        rows = folds(dataset, held_out.FOLDS)[0][1]
    rest = np.setdiff1d(np.arange(len(dataset.samples)), rows)
    return dataset.take(rest), dataset.take(rows)


def frames_to_choose_on(
    run: str | os.PathLike[str], data: Path, *, progress: Callable[[str], None] = lambda _: None
) -> Dataset:
    """Some 1,500 frames at most of the videos that ``run`` held out of the training data in ``data``.

    Raises ``InputError`` as ``part`` and for data that cannot be read.
    """
    held = part(run, load_training(data), progress=progress)[1]
    return held.take(range(0, len(held.samples), max(1, len(held.samples) // _FRAMES)))
