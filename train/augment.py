"""What a frame may look like without changing what it shows: a capsule has no up, and brands differ in colour.

Works on preprocessed frames (uint8 RGB, black outside the inscribed ellipse), so that a turned frame is still a valid
one. Every draw comes from the generator that is passed in: the same seed gives the same bytes.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

__all__ = ["augment"]

Frame = npt.NDArray[np.uint8]
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def augment(frame: Frame, rng: np.random.Generator, strength: float = 1.0) -> Frame:
    """A random variant of a preprocessed frame (uint8 RGB SxSx3); ``strength`` 0 only turns and mirrors it."""
    outside = frame.max(axis=2) == 0
    frame = _move(frame, rng, strength)
    frame = _recolour(frame, rng, strength)
    if rng.random() < 0.2 * strength:
        frame = np.asarray(cv2.GaussianBlur(frame, (0, 0), rng.uniform(0.4, 1.3)), np.uint8)
    if rng.random() < 0.2 * strength:
        frame = _compress(frame, int(rng.integers(30, 80)))
    if outside[0, 0]:
        frame[_corners(frame.shape[0])] = 0
    return frame


def _move(frame: Frame, rng: np.random.Generator, strength: float) -> Frame:
    size = frame.shape[0]
    zoom = float(np.exp(rng.uniform(-0.08, 0.18) * strength))
    turn = cv2.getRotationMatrix2D((size / 2 - 0.5, size / 2 - 0.5), rng.uniform(0, 360), zoom)
    turn[:, 2] += rng.uniform(-0.05, 0.05, 2) * strength * size
    if rng.random() < 0.5:
        turn = turn @ np.array([[-1, 0, size - 1], [0, 1, 0], [0, 0, 1]])
    return np.asarray(cv2.warpAffine(frame, turn, (size, size), flags=cv2.INTER_LINEAR), np.uint8)


def _recolour(frame: Frame, rng: np.random.Generator, strength: float) -> Frame:
    """Exposure, gamma, colour temperature and saturation, as they differ between brands of capsule."""
    gamma = float(np.exp(rng.uniform(-0.25, 0.25) * strength))
    gain = float(np.exp(rng.uniform(-0.25, 0.2) * strength))
    curve = np.clip(255 * gain * (np.arange(256) / 255) ** gamma, 0, 255).astype(np.uint8)
    saturation = float(np.exp(rng.uniform(-0.35, 0.3) * strength))
    warmth = rng.uniform(-0.12, 0.12) * strength
    tint = np.exp(np.array([warmth, rng.uniform(-0.03, 0.03) * strength, -warmth]))
    mix = saturation * np.eye(3) + (1 - saturation) * np.tile(_LUMA, (3, 1))
    return np.asarray(cv2.transform(cv2.LUT(frame, curve), (tint[:, None] * mix).astype(np.float32)), np.uint8)


def _compress(frame: Frame, quality: int) -> Frame:
    _, coded = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR), np.uint8)


def _corners(size: int) -> npt.NDArray[np.bool_]:
    at = np.arange(size) + 0.5 - size / 2
    return np.asarray(at[:, None] ** 2 + at[None, :] ** 2 > (size / 2) ** 2)
