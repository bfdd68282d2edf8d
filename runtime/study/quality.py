"""The view of a recording: how many frames a label of role ``quality`` calls reduced."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .frame_table import columns
from .records import Study

__all__ = ["answered_values", "reduced_view"]


def reduced_view(study: Study) -> tuple[int, int] | None:
    """Return the number of frames with a reduced view, and of frames answered; None where it is unknown.

    The view is reduced where any label of role ``quality`` is at or above its operating point.
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
    """Return the times (n,) in seconds and the probabilities (n, labels) of the answered frames, float64.

    Probabilities are rounded to the six decimals with which they are written.
    """
    every = columns(study.frames)
    used = every.answered
    if not used.any():
        return np.empty(0), np.empty((0, len(study.model.labels)))
    # float32 holds 0.7 as 0.69999999.
    values = every.probabilities[used].astype(np.float64)
    return every.times_s[used], np.round(values, 6, out=values)
