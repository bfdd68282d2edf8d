"""What a frame may look like without changing what it shows: a capsule has no up, and brands differ in colour.

The draw is numpy's and small (``draw``), the pixels are changed by ``keras.ops`` (``apply``): inside the training
step, on TensorFlow and PyTorch alike. Works on preprocessed frames, black outside the inscribed ellipse, so that a
turned frame is still a valid one. All shapes are known before the step: it can be captured and replayed as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["Variation", "apply", "draw", "palettes"]

Floats = npt.NDArray[np.float32]
_LUMA = np.array([0.299, 0.587, 0.114])
# Gaussians a frame that stand for what floats before the lens: as many pieces of debris, or half as many bubbles.
_SPOTS = 4
# The luminance table of JPEG (ITU-T T.81, K.1), which is that of quality 50.
_JPEG = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ]
)
# A table so fine that rounding by it changes no pixel by half a level.
_FINEST = 1e-3


class Variation(NamedTuple):
    """How each of N frames is varied, float32.

    ``move`` (N, 8) maps output to input pixels, ``blur`` (N,) is the share of a Gaussian of one pixel, ``gain`` and
    ``gamma`` (N,) the exposure, ``mix`` (N, 3, 3) the colour matrix. ``spots`` (N, K, 4) are Gaussians (x, y, radius
    in parts of the frame, opacity) of colour ``tone`` (N, 3), in levels, that lie over the frame; ``coarse`` (N, 1)
    scales JPEG's table of quality 50. ``palette`` (N, 7) is another frame's (``palettes``) and the share of the way to
    it. Where they were not asked for K is 0, ``coarse`` and ``palette`` (N, 0): nothing is computed.
    """

    move: Any
    blur: Any
    gain: Any
    gamma: Any
    mix: Any
    spots: Any
    tone: Any
    coarse: Any
    palette: Any


def draw(
    rng: np.random.Generator,
    count: int,
    size: int,
    strength: float = 1.0,
    *,
    debris: float = 0.0,
    compression: float = 0.0,
    recolour: float = 0.0,
    others: Floats | None = None,
) -> Variation:
    """Variations of ``count`` frames of ``size`` pixels; ``strength`` 0 only turns and mirrors.

    Half of the frames times ``debris`` get bubbles or debris, half times ``compression`` the artefacts of JPEG at a
    quality of about 15 to 90. The share ``recolour`` goes some of the way to the palettes ``others`` (count, 6).
    """
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
    spots, tone = (
        _draw_spots(rng, count, debris) if debris else (np.zeros((count, 0, 4)), np.zeros((count, 3)))
    )
    coarse = np.zeros((count, 0))
    if compression:
        table = np.exp(rng.uniform(np.log(0.2), np.log(3.3), (count, 1)))
        coarse = np.where(rng.random((count, 1)) < 0.5 * compression, table, _FINEST)
    palette = np.zeros((count, 0))
    if recolour and others is not None:
        way = np.where(rng.random(count) < recolour, rng.random(count), 0.0)
        palette = np.column_stack([others, way])
    drawn = (move, blur, gain, gamma, mix, spots, tone, coarse, palette)
    return Variation(*(np.asarray(v, np.float32) for v in drawn))


def _draw_spots(rng: np.random.Generator, count: int, debris: float) -> tuple[Any, Any]:
    """Pieces of debris, or bubbles: a bubble is a Gaussian less a narrower one, a bright rim around a clear middle."""
    x, y = rng.uniform(0.1, 0.9, (2, count, _SPOTS))
    radius = np.exp(rng.uniform(np.log(0.015), np.log(0.08), (count, _SPOTS)))
    opacity = rng.uniform(0, 0.9, (count, _SPOTS))
    bubble = rng.random((count, 1)) < 0.5
    inner = bubble & (np.arange(_SPOTS) % 2 == 1)
    for values in (x, y, radius, opacity):
        values[:, 1::2] = np.where(bubble, values[:, ::2], values[:, 1::2])
    radius = np.where(inner, 0.6 * radius, radius)
    # The rim of a difference of these two is a third as high as each of them.
    opacity = opacity * np.where(bubble, np.where(inner, -2.5, 2.5), 1.0)
    opacity = opacity * (rng.random((count, 1)) < 0.5 * debris)
    residue = rng.uniform((90, 70, 20), (200, 170, 90), (count, 3))
    tone = np.where(bubble, rng.uniform(200, 255, (count, 1)), residue)
    return np.stack([x, y, radius, opacity], axis=2), tone


def apply(pixels: Any, variation: Variation, ops: Any, move: Callable[[Any, Any], Any]) -> Any:
    """Frames uint8 RGB (N, S, S, 3), varied and scaled to [-1, 127/128] float32; ``ops`` is ``keras.ops``.

    ``move`` transforms float frames by ``variation.move``, bilinearly: that of ``keras.ops`` turns the other way on
    PyTorch than on TensorFlow (Keras 3.15), and takes longer than the model.
    """
    size = int(pixels.shape[1])
    x = move(ops.cast(pixels, "float32"), variation.move)
    share = ops.reshape(variation.blur, (-1, 1, 1, 1))
    x = (1 - share) * x + share * ops.depthwise_conv(x, ops.convert_to_tensor(_gaussian()), padding="same")
    if variation.palette.shape[-1]:
        x = _recolour(x, variation.palette, ops)
    if variation.spots.shape[-2]:
        x = _cover(x, variation.spots, variation.tone, ops)
    x = ops.power(x / 255, ops.reshape(variation.gamma, (-1, 1, 1, 1))) * ops.reshape(
        variation.gain, (-1, 1, 1, 1)
    )
    flat = ops.matmul(ops.reshape(x, (-1, size * size, 3)), variation.mix)
    x = ops.clip(ops.reshape(flat, (-1, size, size, 3)), 0.0, 1.0)
    if variation.coarse.shape[-1]:
        x = _compress(x, variation.coarse, ops)
    return (x * ops.convert_to_tensor(_inside(size)) * 255 - 128) / 128


def palettes(pixels: npt.NDArray[np.uint8]) -> Floats:
    """Mean and standard deviation of each colour within the inscribed circle, in levels: (N, S, S, 3) to (N, 6)."""
    coarse = pixels[:, ::8, ::8]
    inside = _inside(pixels.shape[1])[::8, ::8, 0] > 0
    values = [frame[inside].astype(np.float32) for frame in coarse]
    return np.array([np.concatenate([v.mean(0), v.std(0)]) for v in values], np.float32).reshape(-1, 6)


def _recolour(x: Any, palette: Any, ops: Any) -> Any:
    """Frames (N, S, S, 3) in levels, some of the way to another's colours (Reinhard et al., CG&A 2001, in RGB)."""
    inside = ops.convert_to_tensor(_inside(int(x.shape[1]))[None])
    area = ops.sum(inside)
    mean = ops.sum(x * inside, axis=(1, 2), keepdims=True) / area
    spread = ops.sqrt(ops.sum(ops.square(x - mean) * inside, axis=(1, 2), keepdims=True) / area)
    palette = palette[:, None, None, :]
    factor = ops.clip(palette[..., 3:6] / (spread + 1.0), 0.5, 2.0)
    changed = (x - mean) * factor + palette[..., :3]
    return ops.clip(x + palette[..., 6:] * (changed - x), 0.0, 255.0)


def _cover(x: Any, spots: Any, tone: Any, ops: Any) -> Any:
    """Frames (N, S, S, 3) in levels under their spots. Gaussians are separable, so their sum is one small product."""
    size = int(x.shape[1])
    at = ops.convert_to_tensor(((np.arange(size) + 0.5) / size).astype(np.float32))
    across = ops.exp(-0.5 * ops.square((at - spots[..., 0:1]) / spots[..., 2:3]))
    down = ops.exp(-0.5 * ops.square((at - spots[..., 1:2]) / spots[..., 2:3])) * spots[..., 3:4]
    share = ops.clip(ops.matmul(ops.transpose(down, (0, 2, 1)), across), 0.0, 1.0)
    return x + share[..., None] * (tone[:, None, None, :] - x)


def _compress(x: Any, coarse: Any, ops: Any) -> Any:
    """Frames (N, S, S, 3) in [0, 1] as JPEG would leave them: cosines of 8 x 8 blocks, rounded (each colour alike)."""
    size = int(x.shape[1])
    blocks = size // 8
    cosines = ops.convert_to_tensor(_cosines())
    x = ops.reshape(x * 255 - 128, (-1, blocks, 8, blocks, 8, 3))
    x = ops.matmul(ops.reshape(ops.transpose(x, (0, 1, 3, 5, 2, 4)), (-1, blocks * blocks * 3, 64)), cosines)
    step = ops.convert_to_tensor(_JPEG.reshape(1, 1, 64).astype(np.float32)) * coarse[:, :, None]
    x = ops.matmul(ops.round(x / step) * step, ops.transpose(cosines))
    x = ops.transpose(ops.reshape(x, (-1, blocks, blocks, 3, 8, 8)), (0, 1, 4, 2, 5, 3))
    return ops.clip((ops.reshape(x, (-1, size, size, 3)) + 128) / 255, 0.0, 1.0)


def _cosines() -> Floats:
    """(64, 64): a block's pixels, row by row, to the coefficients of its orthonormal cosine transform."""
    k = np.arange(8)[:, None]
    line = np.sqrt(np.where(k == 0, 1, 2) / 8) * np.cos(np.pi * (2 * np.arange(8) + 1) * k / 16)
    return np.kron(line, line).T.astype(np.float32)


def _gaussian() -> Floats:
    line = np.exp(-0.5 * np.arange(-2, 3) ** 2)
    kernel = np.outer(line, line) / line.sum() ** 2
    return np.tile(kernel[:, :, None, None], (1, 1, 3, 1)).astype(np.float32)


def _inside(size: int) -> Floats:
    at = np.arange(size) + 0.5 - size / 2
    return (at[:, None] ** 2 + at[None, :] ** 2 <= (size / 2) ** 2)[:, :, None].astype(np.float32)
