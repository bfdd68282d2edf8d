"""Count the frames with a reduced view, by the labels of role ``quality``, and the frames that were set aside."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .frame_table import columns
from .records import STATUSES, Study

__all__ = ["answered_values", "count_set_aside", "reduced_view"]


def reduced_view(study: Study) -> tuple[int, int] | None:
    """Return the number of frames with a reduced view and the number of answered frames.

    The view of a frame is reduced if any label of role ``quality`` is at or above its operating point. The result is
    None if no such label has an operating point, or if no frame was answered.
    """
    spec = study.model
    points = {
        column: spec.operating_points[spec.keys[column]].threshold
        for column in spec.index_of("quality")
        if spec.keys[column] in spec.operating_points
    }
    _, values = answered_values(study)
    if not points or not len(values):
        return None
    seen = np.any([values[:, column] >= threshold for column, threshold in points.items()], axis=0)
    return int(seen.sum()), len(values)


def answered_values(study: Study) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the container times in seconds (n,) and the probabilities (n, labels) of the answered frames, float64.

    The probabilities are rounded to six decimals, as in ``frames.csv``.
    """
    every = columns(study.frames)
    used = every.answered
    if not used.any():
        return np.empty(0), np.empty((0, len(study.model.labels)))
    # Round as float64: float32 stores 0.7 as 0.69999999, which would miss a threshold of 0.7.
    values = every.probabilities[used].astype(np.float64)
    return every.times_s[used], np.round(values, 6, out=values)


def count_set_aside(study: Study) -> tuple[int, float | None] | None:
    """Return the number of classified frames that were set aside, and their share of the classified frames.

    The share is None where no frame was classified. The result is None if the model cannot tell unfamiliar frames.
    Duplicates are not counted: they take the answer of the frame that they repeat.
    """
    if study.model.familiarity is None:
        return None
    every = columns(study.frames)
    classified = every.status == STATUSES.index("classified")
    count, whole = int((every.set_aside & classified).sum()), int(classified.sum())
    return count, count / whole if whole else None
