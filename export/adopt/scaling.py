"""The scaling of pixels that a model's input expects: parse it, apply it, and list the usual ones."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from capsule_edge.runtime.errors import UsageError

from .facts import Channels, Floats, Layout

__all__ = ["USUAL", "Scaling", "parse_scaling"]

Three = tuple[float, float, float]
# Mean and deviation of red, green and blue in levels of 255. ImageNet's are torchvision's; Keras calls the last one
# ``caffe``.
USUAL: dict[str, tuple[Three, Three]] = {
    "0..255": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "0..1": ((0.0, 0.0, 0.0), (255.0, 255.0, 255.0)),
    "-1..1": ((127.5, 127.5, 127.5), (127.5, 127.5, 127.5)),
    "imagenet": ((0.485 * 255, 0.456 * 255, 0.406 * 255), (0.229 * 255, 0.224 * 255, 0.225 * 255)),
    "caffe": ((123.68, 116.779, 103.939), (1.0, 1.0, 1.0)),
}
# The order of the colours that comes with a scaling of this name wherever it is used.
ORDERS: dict[str, Channels] = {"imagenet": "rgb", "caffe": "bgr"}


@dataclass(frozen=True)
class Scaling:
    """``(level - mean) / deviation`` for each colour, in the order that the model's input expects.

    Attributes:
        name: The scaling as ``--scaling`` writes it.
        mean: Of red, green and blue, in levels of 255.
        deviation: Of red, green and blue, in levels of 255, above 0.
        channels: The order of the colours in the input.
    """

    name: str
    mean: Three
    deviation: Three
    channels: Channels

    @property
    def gain(self) -> npt.NDArray[np.float64]:
        """The factor of each channel in the order of the input, float64 (3,)."""
        return self._ordered(1 / np.asarray(self.deviation, np.float64))

    @property
    def offset(self) -> npt.NDArray[np.float64]:
        """The summand of each channel in the order of the input, float64 (3,)."""
        return self._ordered(-np.asarray(self.mean, np.float64) / np.asarray(self.deviation, np.float64))

    def apply(self, frames: npt.NDArray[np.uint8], layout: Layout) -> Floats:
        """Scale frames to the input of the source model.

        Args:
            frames: uint8 RGB (N, size, size, 3).
            layout: The order of the axes that the model expects.

        Returns:
            float32, NHWC or NCHW.
        """
        ordered = frames if self.channels == "rgb" else frames[..., ::-1]
        scaled = (ordered * self.gain + self.offset).astype(np.float32)
        return np.ascontiguousarray(scaled if layout == "nhwc" else scaled.transpose(0, 3, 1, 2))

    def __str__(self) -> str:
        return f"{self.name}, {self.channels}"

    def _ordered(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return values if self.channels == "rgb" else values[::-1]


def parse_scaling(text: str, channels: Channels | None) -> Scaling | None:
    """Return the scaling that an option or a file states; None if the order of the colours is not known.

    Args:
        text: A key of ``USUAL``, ``MEAN,DEVIATION``, or six numbers: the means of red, green and blue, then their
            deviations; in levels of 255.
        channels: The order of the colours; None takes the one that comes with the scaling, if one does.

    Raises:
        UsageError: The text is none of these, or a deviation is below 1.
    """
    order = channels or ORDERS.get(text)
    mean, deviation = USUAL.get(text) or _numbers(text)
    return None if order is None else Scaling(text, mean, deviation, order)


def _numbers(text: str) -> tuple[Three, Three]:
    try:
        values = [float(part) for part in text.replace(" ", ",").split(",") if part]
    except ValueError:
        values = []
    if len(values) not in (2, 6) or not all(map(math.isfinite, values)):
        raise UsageError(
            f"the scaling is {text!r}, allowed is one of {', '.join(USUAL)}, MEAN,DEVIATION, or six numbers",
            hint="numbers are levels of 255: the means of red, green and blue, then their deviations",
        )
    half = len(values) // 2
    mean, deviation = (tuple(part * (3 // half)) for part in (values[:half], values[half:]))
    if min(deviation) < 1:
        least = min(deviation)
        raise UsageError(
            f"the scaling {text!r} has the deviation {least:g}, allowed is 1 or more, in levels of 255",
            hint=f"multiply by 255 what is stated for pixels of 0..1: {least * 255:g}",
        )
    return (mean[0], mean[1], mean[2]), (deviation[0], deviation[1], deviation[2])
