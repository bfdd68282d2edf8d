"""Augmentation: change how a frame looks without changing what it shows.

A capsule has no up and down, and brands differ in colour. NumPy draws a few numbers for each frame
(``draw``), and ``keras.ops`` changes the pixels (``apply``) inside the training step, on TensorFlow and
PyTorch alike. The frames are preprocessed, so they are black outside the inscribed ellipse and stay valid
when they are turned. All shapes are known before the step, so a CUDA graph can record and replay it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["NO_COMPRESSION", "Variation", "apply", "draw", "palettes"]

Floats = npt.NDArray[np.float32]
_LUMA = np.array([0.299, 0.587, 0.114])
# Gaussians in a frame: as many pieces of debris, or half as many bubbles.
_SPOTS = 4
# The luminance quantisation table of JPEG at quality 50 (ITU-T T.81, K.1).
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
# With a table this fine, rounding changes no pixel by half a level.
NO_COMPRESSION = 1e-3


class Variation(NamedTuple):
    """The augmentation of N frames, all float32.

    Parts that were not asked for are empty arrays, and nothing is computed for them.

    Attributes:
        move: (N, 8), the affine map from output pixels to input pixels.
        blur: (N,), the share of a Gaussian blur of one pixel, 0..1.
        gain: (N,), the factor of exposure.
        gamma: (N,), the exponent of exposure.
        mix: (N, 3, 3), the colour matrix.
        spots: (N, K, 4), Gaussians that lie over the frame: x, y and radius as shares of the frame, and
            opacity. K is 0 without debris.
        tone: (N, 3), the colour of the spots, in levels 0..255.
        coarse: (N, 1), the factor of JPEG's table of quality 50; or (N, 0).
        palette: (N, 7), the palette of another frame (``palettes``) and how far to go towards it, 0..1; or
            (N, 0).
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
    """Draw the augmentation of ``count`` frames.

    Args:
        rng: the random generator.
        count: number of frames.
        size: side of the frames in pixels.
        strength: strength of geometry, blur, exposure and colour, 0..1; 0 only turns and mirrors.
        debris: 0..1; half of this share of the frames gets bubbles or debris.
        compression: 0..1; half of this share of the frames gets JPEG artefacts of a quality of about 15 to
            90.
        recolour: 0..1; this share of the frames goes some of the way towards the palettes in ``others``.
        others: palettes of other frames, float32 (count, 6), or None.

    Returns:
        The augmentation, all arrays float32.
    """
    move = _draw_move(rng, count, size, strength)
    blur = np.where(rng.random(count) < 0.25 * strength, rng.random(count), 0.0)
    gain, gamma, mix = _draw_colours(rng, count, strength)
    spots, tone = (
        _draw_spots(rng, count, debris) if debris else (np.zeros((count, 0, 4)), np.zeros((count, 3)))
    )
    coarse = np.zeros((count, 0))
    if compression:
        table = np.exp(rng.uniform(np.log(0.2), np.log(3.3), (count, 1)))
        coarse = np.where(rng.random((count, 1)) < 0.5 * compression, table, NO_COMPRESSION)
    palette = np.zeros((count, 0))
    if recolour and others is not None:
        way = np.where(rng.random(count) < recolour, rng.random(count), 0.0)
        palette = np.column_stack([others, way])
    drawn = (move, blur, gain, gamma, mix, spots, tone, coarse, palette)
    return Variation(*(np.asarray(v, np.float32) for v in drawn))


def _draw_move(rng: np.random.Generator, count: int, size: int, strength: float) -> Any:
    """Draw turns, mirrors, zooms and shifts, (count, 8)."""
    angle = rng.uniform(0, 2 * np.pi, count)
    zoom = np.exp(rng.uniform(-0.18, 0.08, count) * strength)
    mirror = np.where(rng.random(count) < 0.5, -1.0, 1.0)
    shift = rng.uniform(-0.05, 0.05, (2, count)) * strength * size
    a, b = zoom * np.cos(angle) * mirror, -zoom * np.sin(angle)
    c, d = zoom * np.sin(angle) * mirror, zoom * np.cos(angle)
    centre = (size - 1) / 2
    zero = np.zeros(count)
    return np.stack(
        [a, b, centre - (a + b) * centre + shift[0], c, d, centre - (c + d) * centre + shift[1], zero, zero],
        axis=1,
    )


def _draw_colours(rng: np.random.Generator, count: int, strength: float) -> tuple[Any, Any, Any]:
    """Draw exposure, (count,) gain and gamma, and the colour matrix (count, 3, 3)."""
    gain = np.exp(rng.uniform(-0.25, 0.2, count) * strength)
    gamma = np.exp(rng.uniform(-0.25, 0.25, count) * strength)
    saturation = np.exp(rng.uniform(-0.35, 0.3, count) * strength)[:, None, None]
    warmth = rng.uniform(-0.12, 0.12, count) * strength
    tint = np.exp(np.stack([warmth, rng.uniform(-0.03, 0.03, count) * strength, -warmth], axis=1))
    mix = tint[:, None, :] * (saturation * np.eye(3) + (1 - saturation) * np.tile(_LUMA[:, None], (1, 3)))
    return gain, gamma, mix


def _draw_spots(rng: np.random.Generator, count: int, debris: float) -> tuple[Any, Any]:
    """Draw debris or bubbles.

    A bubble is a Gaussian minus a narrower one: a bright rim around a clear middle.
    """
    x, y = rng.uniform(0.1, 0.9, (2, count, _SPOTS))
    radius = np.exp(rng.uniform(np.log(0.015), np.log(0.08), (count, _SPOTS)))
    opacity = rng.uniform(0, 0.9, (count, _SPOTS))
    bubble = rng.random((count, 1)) < 0.5
    inner = bubble & (np.arange(_SPOTS) % 2 == 1)
    for values in (x, y, radius, opacity):
        values[:, 1::2] = np.where(bubble, values[:, ::2], values[:, 1::2])
    radius = np.where(inner, 0.6 * radius, radius)
    # The rim of the difference of these two Gaussians is a third as high as each of them.
    opacity = opacity * np.where(bubble, np.where(inner, -2.5, 2.5), 1.0)
    opacity = opacity * (rng.random((count, 1)) < 0.5 * debris)
    residue = rng.uniform((90, 70, 20), (200, 170, 90), (count, 3))
    tone = np.where(bubble, rng.uniform(200, 255, (count, 1)), residue)
    return np.stack([x, y, radius, opacity], axis=2), tone


def apply(pixels: Any, variation: Variation, ops: Any, move: Callable[[Any, Any], Any]) -> Any:
    """Augment frames and scale them to [-1, 127/128].

    Args:
        pixels: frames, uint8 RGB (N, S, S, 3), preprocessed.
        variation: the augmentation of the N frames.
        ops: ``keras.ops``.
        move: transforms float frames by ``variation.move``, bilinearly. The function of ``keras.ops`` is not
            used: it turns the other way on PyTorch than on TensorFlow (Keras 3.15), and takes longer than the
            model.

    Returns:
        float32 (N, S, S, 3), black outside the inscribed circle.
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
    """Return mean and standard deviation of each colour within the inscribed circle.

    Args:
        pixels: frames, uint8 RGB (N, S, S, 3). Every eighth pixel in both directions is used.

    Returns:
        float32 (N, 6): three means, then three standard deviations, in levels 0..255.
    """
    coarse = pixels[:, ::8, ::8]
    inside = _inside(pixels.shape[1])[::8, ::8, 0] > 0
    values = [frame[inside].astype(np.float32) for frame in coarse]
    return np.array([np.concatenate([v.mean(0), v.std(0)]) for v in values], np.float32).reshape(-1, 6)


def _recolour(x: Any, palette: Any, ops: Any) -> Any:
    """Move frames (N, S, S, 3), in levels, towards another palette (Reinhard et al., CG&A 2001, in RGB)."""
    inside = ops.convert_to_tensor(_inside(int(x.shape[1]))[None])
    area = ops.sum(inside)
    mean = ops.sum(x * inside, axis=(1, 2), keepdims=True) / area
    spread = ops.sqrt(ops.sum(ops.square(x - mean) * inside, axis=(1, 2), keepdims=True) / area)
    palette = palette[:, None, None, :]
    factor = ops.clip(palette[..., 3:6] / (spread + 1.0), 0.5, 2.0)
    changed = (x - mean) * factor + palette[..., :3]
    return ops.clip(x + palette[..., 6:] * (changed - x), 0.0, 255.0)


def _cover(x: Any, spots: Any, tone: Any, ops: Any) -> Any:
    """Lay the spots over frames (N, S, S, 3), in levels.

    Gaussians are separable, so their sum is one small matrix product.
    """
    size = int(x.shape[1])
    at = ops.convert_to_tensor(((np.arange(size) + 0.5) / size).astype(np.float32))
    across = ops.exp(-0.5 * ops.square((at - spots[..., 0:1]) / spots[..., 2:3]))
    down = ops.exp(-0.5 * ops.square((at - spots[..., 1:2]) / spots[..., 2:3])) * spots[..., 3:4]
    share = ops.clip(ops.matmul(ops.transpose(down, (0, 2, 1)), across), 0.0, 1.0)
    return x + share[..., None] * (tone[:, None, None, :] - x)


def _compress(x: Any, coarse: Any, ops: Any) -> Any:
    """Give frames (N, S, S, 3) in [0, 1] the artefacts of JPEG: round the cosine transform of 8 x 8 blocks.

    All three colours are treated alike.
    """
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
    """Return the orthonormal cosine transform of an 8 x 8 block, float32 (64, 64).

    It maps pixels, row by row, to coefficients.
    """
    k = np.arange(8)[:, None]
    line = np.sqrt(np.where(k == 0, 1, 2) / 8) * np.cos(np.pi * (2 * np.arange(8) + 1) * k / 16)
    return np.kron(line, line).T.astype(np.float32)


def _gaussian() -> Floats:
    """Return a depthwise kernel of a Gaussian of one pixel, float32 (5, 5, 3, 1)."""
    line = np.exp(-0.5 * np.arange(-2, 3) ** 2)
    kernel = np.outer(line, line) / line.sum() ** 2
    return np.tile(kernel[:, :, None, None], (1, 1, 3, 1)).astype(np.float32)


def _inside(size: int) -> Floats:
    """Return 1 inside the inscribed circle and 0 outside, float32 (size, size, 1)."""
    at = np.arange(size) + 0.5 - size / 2
    return (at[:, None] ** 2 + at[None, :] ** 2 <= (size / 2) ** 2)[:, :, None].astype(np.float32)
