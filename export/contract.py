"""The contract of a model that every room of export shares: input frames, the three outputs, how to call it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

__all__ = ["OUTPUTS", "FrameArray", "Outputs", "Runner", "scale_pixels"]

# The outputs of every exported file, in the order in which the file lists them.
OUTPUTS = ("probabilities", "logits", "features")

# uint8 RGB, (N, size, size, 3), preprocessed.
FrameArray = npt.NDArray[np.uint8]
# float32 arrays by the name of the output.
Outputs = Mapping[str, npt.NDArray[np.float32]]
# A model as a function of frames.
Runner = Callable[[FrameArray], Outputs]


def scale_pixels(frames: FrameArray) -> npt.NDArray[np.float32]:
    """Scale frames to the input of a Keras model.

    Args:
        frames: uint8 RGB (N, size, size, 3).

    Returns:
        float32 of the same shape: ``(frames - 128) / 128``, in [-1, 127/128].
    """
    return np.asarray((frames.astype(np.float32) - 128) / 128, np.float32)
