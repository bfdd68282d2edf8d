"""Recognise a frozen picture: the same picture again and again, such as a player or a recorder that stands still.

A capsule that lies still sends pictures that differ by noise. A frozen picture differs only by what the video encoder
makes of it. The mean colour of the field of view is enough to tell them apart, and the journal of a run keeps it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..inference import FamiliarityRule

__all__ = ["FrozenPictures"]

# With the near-duplicate filter or --every, few frames of a stretch are compared. So many have to be equal at least.
_LEAST_REPEATS = 8


class FrozenPictures:
    """Follow the pictures of one recording or stream, in order.

    Args:
        rule: of the model; None if the model sets no frame aside.
    """

    def __init__(self, rule: FamiliarityRule | None) -> None:
        self._parameters = None if rule is None else rule.parameters
        self._first: npt.NDArray[np.float64] | None = None
        self._since = self._repeats = 0

    def add(self, index: int, colour: npt.NDArray[np.float64]) -> bool:
        """Take the next answered frame and return whether it only repeats a frozen picture.

        The first ``frozen_frames`` frames of a frozen picture are not reported: one look at it is evidence, and more
        looks add none.

        Args:
            index: index of the frame.
            colour: mean red, green and blue of the frame, 0..255, float64 (3,).
        """
        rule = self._parameters
        if rule is None:
            return False
        if self._first is None or np.abs(colour - self._first).max() > rule.frozen_levels:
            self._first, self._since, self._repeats = colour, index, 0
            return False
        self._repeats += 1
        return index - self._since >= rule.frozen_frames and self._repeats >= min(
            _LEAST_REPEATS, rule.frozen_frames
        )
