"""Compute the mean colours of a recording over time, for the colour bar of the report."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["ColourBar"]

_BINS = 1000


class ColourBar:
    """The mean colour of the frames in each of some equal intervals of container time.

    Args:
        frames: number of frames of the recording.
        duration_s: length of the recording in seconds of container time.
    """

    def __init__(self, *, frames: int, duration_s: float) -> None:
        # Two frames per interval: with one, rounding would leave some intervals empty though frames are evenly spaced.
        self._bins = max(1, min(_BINS, frames // 2))
        self._duration_s = duration_s or 1.0
        self._sums = np.zeros((self._bins, 3))
        self._counts = np.zeros(self._bins, np.int64)
        self._last = np.zeros(3)

    def add(self, time_s: float, colour: npt.NDArray[np.float64]) -> None:
        """Add a frame.

        Args:
            time_s: time of the frame, seconds of container time.
            colour: mean red, green and blue of the frame, 0..255, float64 (3,).
        """
        place = min(int(time_s / self._duration_s * self._bins), self._bins - 1)
        self._sums[place] += colour
        self._counts[place] += 1
        self._last = colour

    def again(self, time_s: float) -> None:
        """Add a frame with the colour of the frame that was added last."""
        self.add(time_s, self._last)

    def means(self) -> npt.NDArray[np.float64]:
        """Return the mean colour of each interval: float64 (bins, 3), RGB 0..255; NaN where no frame lies."""
        means = np.full((self._bins, 3), np.nan)
        np.divide(self._sums, self._counts[:, None], out=means, where=self._counts[:, None] > 0)
        return means
