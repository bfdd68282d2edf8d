"""The mean colours of a recording over its time, for the report's colour bar."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["ColourBar"]

_BINS = 1000


class ColourBar:
    """Mean colour of the frames in equal stretches of ``duration_s`` seconds of container time."""

    def __init__(self, *, frames: int, duration_s: float) -> None:
        # Two frames a stretch: with one, rounding leaves stretches empty between frames that are evenly spaced.
        self._bins = max(1, min(_BINS, frames // 2))
        self._duration_s = duration_s or 1.0
        self._sums = np.zeros((self._bins, 3))
        self._counts = np.zeros(self._bins, np.int64)
        self._last = np.zeros(3)

    def add(self, time_s: float, colour: npt.NDArray[np.float64]) -> None:
        """Count a frame by its mean colour (``mean_colours``)."""
        place = min(int(time_s / self._duration_s * self._bins), self._bins - 1)
        self._sums[place] += colour
        self._counts[place] += 1
        self._last = colour

    def again(self, time_s: float) -> None:
        """Count a frame that is as the last one was."""
        self.add(time_s, self._last)

    def means(self) -> npt.NDArray[np.float64]:
        """RGB 0..255 of shape (bins, 3), NaN for a stretch without a frame."""
        means = np.full((self._bins, 3), np.nan)
        np.divide(self._sums, self._counts[:, None], out=means, where=self._counts[:, None] > 0)
        return means
