"""What a frame may look like without changing what it shows: a capsule has no up, and brands differ in colour.

The draw is numpy's and small (``draw``), the pixels are changed by ``keras.ops`` (``apply``): inside the training
step, on TensorFlow and PyTorch alike. Works on preprocessed frames, black outside the inscribed ellipse, so that a
turned frame is still a valid one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["Variation", "apply", "draw"]

Floats = npt.NDArray[np.float32]
_LUMA = np.array([0.299, 0.587, 0.114])


class Variation(NamedTuple):
    """How each of N frames is varied, float32: ``move`` (N, 8) maps output to input pixels, ``blur`` (N,) is the share
    of a Gaussian of one pixel, ``gain`` and ``gamma`` (N,) the exposure, ``mix`` (N, 3, 3) the colour matrix."""

    move: Any
    blur: Any
    gain: Any
    gamma: Any
    mix: Any


def draw(rng: np.random.Generator, count: int, size: int, strength: float = 1.0) -> Variation:
    """Variations of ``count`` frames of ``size`` pixels; ``strength`` 0 only turns and mirrors."""
    angle = rng.uniform(0, 2 * np.pi, count)
    zoom = np.exp(rng.uniform(-0.18, 0.08, count) * strength)
    mirror = np.where(rng.random(count) < 0.5, -1.0, 1.0)
    shift = rng.uniform(-0.05, 0.05, (2, count)) * strength * size
    a, b = zoom * np.cos(angle) * mirror, -zoom * np.sin(angle)
    c, d = zoom * np.sin(angle) * mirror, zoom * np.cos(angle)
    centre = (size - 1) / 2
    zero = np.zeros(count)
    move = np.stack(
        [a, b, centre - (a + b) * centre + shift[0], c, d, centre - (c + d) * centre + shift[1], zero, zero],
        axis=1,
    )
    blur = np.where(rng.random(count) < 0.25 * strength, rng.random(count), 0.0)
    gain = np.exp(rng.uniform(-0.25, 0.2, count) * strength)
    gamma = np.exp(rng.uniform(-0.25, 0.25, count) * strength)
    saturation = np.exp(rng.uniform(-0.35, 0.3, count) * strength)[:, None, None]
    warmth = rng.uniform(-0.12, 0.12, count) * strength
    tint = np.exp(np.stack([warmth, rng.uniform(-0.03, 0.03, count) * strength, -warmth], axis=1))
    mix = tint[:, None, :] * (saturation * np.eye(3) + (1 - saturation) * np.tile(_LUMA[:, None], (1, 3)))
    return Variation(*(np.asarray(v, np.float32) for v in (move, blur, gain, gamma, mix)))


def apply(pixels: Any, variation: Variation, ops: Any, move: Callable[[Any, Any], Any]) -> Any:
    """Frames uint8 RGB (N, S, S, 3), varied and scaled to [-1, 127/128] float32; ``ops`` is ``keras.ops``.

    ``move`` transforms float frames by ``variation.move``, bilinearly: that of ``keras.ops`` turns the other way on
    PyTorch than on TensorFlow (Keras 3.15), and takes longer than the model.
    """
    size = int(pixels.shape[1])
    x = move(ops.cast(pixels, "float32"), variation.move)
    share = ops.reshape(variation.blur, (-1, 1, 1, 1))
    x = (1 - share) * x + share * ops.depthwise_conv(x, ops.convert_to_tensor(_gaussian()), padding="same")
    x = ops.power(x / 255, ops.reshape(variation.gamma, (-1, 1, 1, 1))) * ops.reshape(
        variation.gain, (-1, 1, 1, 1)
    )
    flat = ops.matmul(ops.reshape(x, (-1, size * size, 3)), variation.mix)
    x = ops.clip(ops.reshape(flat, (-1, size, size, 3)), 0.0, 1.0)
    return (x * ops.convert_to_tensor(_inside(size)) * 255 - 128) / 128


def _gaussian() -> Floats:
    line = np.exp(-0.5 * np.arange(-2, 3) ** 2)
    kernel = np.outer(line, line) / line.sum() ** 2
    return np.tile(kernel[:, :, None, None], (1, 1, 3, 1)).astype(np.float32)


def _inside(size: int) -> Floats:
    at = np.arange(size) + 0.5 - size / 2
    return (at[:, None] ** 2 + at[None, :] ** 2 <= (size / 2) ** 2)[:, :, None].astype(np.float32)
