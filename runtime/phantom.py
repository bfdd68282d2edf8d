"""A rendered capsule-endoscopy recording whose findings are known: for the demo, the tests and as added training frames.

Mucosa is a periodic texture of folds, villi, residue and bubbles on the wall of a tube, seen down its lumen: a log-polar
map about the lumen's centre is conformal, so that one warp of the texture gives travel (shift along the radius), roll
(shift along the angle) and a lumen that opens and closes. Lesions are patches laid on the wall before light falls on it.
Every frame is a function of (seed, index) alone. Phantoms are no substitute for patients' frames: a model that reads them
well has shown that its plumbing works, nothing more.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import av
import cv2
import numpy as np
import numpy.typing as npt

from .errors import OutputError, UsageError
from .phantom_lesions import LESION_LABELS, LESION_RADIUS, Floats, draw_patch, noise

__all__ = [
    "DEMO_SEED",
    "LESION_LABELS",
    "NORMAL",
    "RECORDING_SEEDS",
    "TRAINING_SEEDS",
    "Phantom",
    "PlantedLesion",
    "training_frames",
    "write_recording",
]

Frame = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

NORMAL = "normal"
# A model may be trained on phantoms and then shown in the demo: a scene of one must never be a scene of the other.
RECORDING_SEEDS = range(0, 1_000)
TRAINING_SEEDS = range(1_000_000, 2**31)
DEMO_SEED = 7

_RADIUS = 0.48
_RAMP_S = 2.0
_PATCH = 256
_TAU = 2.0 * math.pi


@dataclass(frozen=True)
class PlantedLesion:
    """A lesion of ``label`` (one of ``LESION_LABELS``) in view from ``start_s`` up to, not including, ``end_s``.

    Seconds of capture time, which is container time unless ``write_recording`` is given another rate.
    """

    label: str
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Phantom:
    """A recording of ``frames`` frames of ``size`` x ``size`` pixels (even, >= 64), ``capture_fps`` a second.

    ``lesions`` None plants ``default_lesions``; an empty tuple plants none. They may not overlap.
    Raises ``UsageError`` for anything that cannot be rendered.
    """

    seed: int
    frames: int = 600
    size: int = 336
    capture_fps: float = 2.0
    lesions: tuple[PlantedLesion, ...] | None = None

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise UsageError(f"the phantom's seed is {self.seed}, allowed is 0 or more")
        if self.frames < 1:
            raise UsageError(f"the phantom has {self.frames} frames, allowed is 1 or more")
        if self.size < 64 or self.size % 2:
            raise UsageError(f"the phantom's size is {self.size}, allowed is an even number from 64")
        if not (math.isfinite(self.capture_fps) and self.capture_fps > 0):
            raise UsageError(f"capture_fps is {self.capture_fps}, allowed is a number above 0")
        before = PlantedLesion("", -1.0, 0.0)
        for lesion in sorted(self.lesions or (), key=lambda one: one.start_s):
            if lesion.label not in LESION_LABELS:
                raise UsageError(
                    f"lesion label is {lesion.label!r}, allowed is one of {', '.join(LESION_LABELS)}"
                )
            if not 0 <= lesion.start_s < lesion.end_s <= self.duration_s:
                raise UsageError(
                    f"lesion {lesion.label} is planted from {lesion.start_s} to {lesion.end_s} s,"
                    f" allowed is a stretch within 0 to {self.duration_s} s"
                )
            if lesion.start_s < before.end_s:
                raise UsageError(
                    f"lesion {lesion.label} starts at {lesion.start_s} s,"
                    f" allowed is from {before.end_s} s on, where {before.label} ends"
                )
            before = lesion

    @property
    def duration_s(self) -> float:
        return self.frames / self.capture_fps

    @property
    def planted(self) -> tuple[PlantedLesion, ...]:
        """The lesions in the recording, given or default."""
        return self.default_lesions() if self.lesions is None else self.lesions

    def clean(self) -> Phantom:
        """The same recording without lesions."""
        return replace(self, lesions=())

    def default_lesions(self) -> tuple[PlantedLesion, ...]:
        """Up to four lesions of different labels, 16 to 28 s each and 20 s or more apart; fewer in under 220 s."""
        rng = np.random.default_rng([self.seed, 1])
        count = max(0, min(4, int((self.duration_s - 20) // 50)))
        labels = rng.permutation(LESION_LABELS)[:count]
        lasts = rng.integers(16, 29, count)
        spare = self.duration_s - float(lasts.sum()) - 20.0 * (count + 1)
        gaps = np.floor(20.0 + spare * rng.dirichlet(np.full(count + 1, 3.0)))
        planted, at = [], 0.0
        for label, last, gap in zip(labels, lasts, gaps, strict=False):
            planted.append(PlantedLesion(str(label), at + float(gap), at + float(gap) + float(last)))
            at += float(gap) + float(last)
        return tuple(planted)

    def truth(self, index: int) -> str:
        """Label key of frame ``index``, ``normal`` where no lesion is planted."""
        found = self._lesion_at(index)
        return NORMAL if found is None else found[1].label

    def render(self, index: int) -> Frame:
        """Frame ``index`` as uint8 RGB (size, size, 3). Raises ``UsageError`` outside 0 to ``frames`` - 1."""
        layer = self._lesion_layer(index)
        return _scene(self.seed, self.size).render(index, index / self.capture_fps, layer)

    def lesion_mask(self, index: int) -> Mask | None:
        """True where the lesion covers more than a quarter of the wall's colour, bool (size, size); None without one."""
        layer = self._lesion_layer(index)
        return None if layer is None else (layer[..., 3] > 63) & _scene(self.seed, self.size).inside

    def _lesion_at(self, index: int) -> tuple[int, PlantedLesion] | None:
        if not 0 <= index < self.frames:
            raise UsageError(f"frame index is {index}, allowed is 0 to {self.frames - 1}")
        # Compared in frames: index / fps in floating point may fall just short of a boundary that it equals.
        for number, lesion in enumerate(self.planted):
            first = math.ceil(round(lesion.start_s * self.capture_fps, 6))
            last = math.ceil(round(lesion.end_s * self.capture_fps, 6))
            if first <= index < last:
                return number, lesion
        return None

    def _lesion_layer(self, index: int) -> Frame | None:
        found = self._lesion_at(index)
        if found is None:
            return None
        number, lesion = found
        t = index / self.capture_fps
        # Never from nothing: a lesion is there to be seen in the first frame whose truth names it.
        grown = min(1.0, 0.6 + 0.4 * min(t - lesion.start_s, lesion.end_s - t) / _RAMP_S)
        scene = _scene(self.seed, self.size)
        return scene.place(
            number, lesion.label, (t - lesion.start_s) / (lesion.end_s - lesion.start_s), grown, t
        )


class _Wander:
    """A smooth bounded path: ``count`` slow sines of random phase. Periods are in seconds of capture time."""

    def __init__(
        self, rng: np.random.Generator, amplitude: float, fastest_s: float, slowest_s: float
    ) -> None:
        self._periods = rng.uniform(fastest_s, slowest_s, 3)
        self._phases = rng.uniform(0, _TAU, 3)
        self._amplitude = amplitude

    def at(self, t: float) -> float:
        return self._amplitude * float(np.sin(_TAU * t / self._periods + self._phases).sum()) / 1.8


class _Scene:
    """What is fixed over a recording: the wall's texture, the optics and the camera's path."""

    def __init__(self, seed: int, size: int) -> None:
        rng = np.random.default_rng([seed, 0])
        self.seed, self.size = seed, size
        # About one texel per pixel of a wall at the field of view's rim; a power of two because noise octaves divide it.
        self.texels = 2 ** math.ceil(math.log2(2.2 * size))
        self.mucosa = _mucosa_colour(rng)
        self.wall, self.gloss = _paint_wall(rng, self.texels, self.mucosa)
        at = ((np.arange(size, dtype=np.float32) + 0.5) / size * 2.0 - 1.0) / (2 * _RADIUS)
        self.x, self.y = np.meshgrid(at, at)
        rho: Floats = np.hypot(self.x, self.y)
        self.inside: Mask = rho <= 1.0
        disc = np.clip((1.0 - rho) * size * _RADIUS + 0.5, 0.0, 1.0)
        self.disc: Frame = np.repeat(np.rint(disc * 255).astype(np.uint8)[..., None], 3, axis=2)
        self.coarse = max(16, size // 4)
        coarse_rho = cv2.resize(rho, (self.coarse, self.coarse), interpolation=cv2.INTER_AREA)
        self.vignette: Floats = np.asarray(1.0 - rng.uniform(0.25, 0.5) * coarse_rho**2.5, np.float32)
        self.grain: Frame = np.clip(rng.normal(6, 1.6, (size + 61, size + 61, 3)), 0, 12).astype(np.uint8)
        self.swell = rng.normal(0, 1, (4, 6, 6)).astype(np.float32)
        angles = np.arange(2048) / 2048 * _TAU
        lobes = sum(
            rng.uniform(0, 0.30) / k**0.7 * np.sin(k * angles + rng.uniform(0, _TAU)) for k in (1, 2, 3, 4, 6)
        )
        self.lobes: Floats = np.asarray(1.0 + lobes, np.float32)
        self.bile = np.array(
            [rng.uniform(0.72, 0.9), rng.uniform(0.72, 0.88), rng.uniform(0.12, 0.4)], np.float32
        )
        self.bile_level = rng.uniform(0.0, 0.8) * (rng.random() < 0.7)
        self.exposure = rng.uniform(0.85, 1.12)
        self.floor = rng.uniform(0.06, 0.2)
        off = rng.uniform(0, _TAU)
        far = rng.uniform(0.1, 0.75)
        self.centre = (far * math.cos(off), far * math.sin(off))
        self.path_x, self.path_y = _Wander(rng, 0.35, 25, 90), _Wander(rng, 0.35, 25, 90)
        self.roll, self.lumen = _Wander(rng, 1.2, 40, 160), _Wander(rng, 1.0, 12, 60)
        self.travel, self.sway = rng.uniform(0.01, 0.05), _Wander(rng, 0.25, 15, 60)
        self.start = rng.uniform(0, _TAU, 2)

    def render(self, index: int, t: float, lesion: Frame | None) -> Frame:
        turn, n = t / 23.0, self.texels
        swell = [
            cv2.resize(
                self.swell[k] * np.float32(math.cos(turn)) + self.swell[k + 1] * np.float32(math.sin(turn)),
                (self.size, self.size),
                interpolation=cv2.INTER_CUBIC,
            )
            for k in (0, 2)
        ]
        cx, cy = self.centre[0] + self.path_x.at(t), self.centre[1] + self.path_y.at(t)
        radius, angle = cv2.cartToPolar(self.x + 0.09 * swell[0] - cx, self.y + 0.09 * swell[1] - cy)
        radius *= self.lobes[(angle * (2048 / _TAU)).astype(np.int32) & 2047]
        depth = cv2.log(radius + np.float32(0.03))
        scale = n / _TAU
        across = angle * np.float32(scale) + np.float32((self.start[0] + self.roll.at(t)) * scale % n)
        along = depth * np.float32(scale) + np.float32(
            (self.start[1] - t * self.travel + self.sway.at(t)) * scale % n
        )
        frame = cv2.remap(self.wall, across, along, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
        light = self._light(t, radius, swell[0])
        glints = cv2.remap(
            self.gloss,
            across + np.float32(9.0 * math.sin(t / 3)),
            along,
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_WRAP,
        )
        if lesion is not None:
            frame, light, glints = _lay_over(frame, light, glints, lesion)
        frame = cv2.multiply(frame, light, scale=1 / 200)
        shine = cv2.multiply(glints, light[..., 1], scale=1 / 230)
        frame = cv2.add(frame, cv2.merge([shine, shine, shine]))
        jitter = np.random.default_rng([self.seed, 2, index]).integers(0, 61, 2)
        grain = self.grain[jitter[0] : jitter[0] + self.size, jitter[1] : jitter[1] + self.size]
        frame = cv2.subtract(cv2.add(frame, grain), np.full(4, 6.0))
        frame = cv2.multiply(frame, self.disc, scale=1 / 255)
        return self._caption(np.asarray(frame, np.uint8), t)

    def _light(self, t: float, radius: Floats, swell: npt.NDArray[np.floating]) -> Frame:
        """Light on the wall as uint8 RGB (size, size, 3), 200 for full: the lamp, the lumen's dark and bile."""
        small = (self.coarse, self.coarse)
        near = cv2.resize(radius, small, interpolation=cv2.INTER_AREA)
        wave = cv2.resize(np.asarray(swell, np.float32), small, interpolation=cv2.INTER_AREA)
        opening = 0.30 * (1.0 + 0.75 * math.tanh(self.lumen.at(t)))
        s = np.clip((near - 0.35 * opening) / (1.5 * opening + 0.12), 0.0, 1.0)
        lamp = (self.floor + (1.0 - self.floor) * s * s * (3 - 2 * s)) * self.vignette * self.exposure
        lamp = np.clip(lamp * (1.0 + 0.07 * wave), 0.02, 1.27)
        pool = np.clip(wave * 0.5 + 0.15 + self.lumen.at(t + 40) * 0.3, 0.0, 1.0) * self.bile_level
        # Haemoglobin keeps the red of a dim wall: blue and green fall faster than the light does.
        tint = 1.0 - pool[..., None] * (1.0 - self.bile)
        rgb = np.power(lamp[..., None], np.array([0.85, 1.1, 1.25], np.float32)) * tint
        coarse = np.clip(rgb * 200.0, 0, 255).astype(np.uint8)
        return np.asarray(
            cv2.resize(coarse, (self.size, self.size), interpolation=cv2.INTER_LINEAR), np.uint8
        )

    def place(self, number: int, label: str, share: float, grown: float, t: float) -> Frame:
        """The lesion's patch where it is in the frame at ``t`` (s), uint8 RGBA (size, size, 4)."""
        rng = np.random.default_rng([self.seed, 3, number])
        low, high = LESION_RADIUS[label]
        reach = rng.uniform(low, high) * grown
        bearing, spin, drift = rng.uniform(0, _TAU, 3)
        off = rng.uniform(0.15, 0.5) * (1.0 - 0.5 * low)
        x = off * math.cos(bearing) + 0.22 * (share - 0.5) * math.cos(drift) + 0.05 * math.sin(t / 3.1)
        y = off * math.sin(bearing) + 0.22 * (share - 0.5) * math.sin(drift) + 0.05 * math.cos(t / 4.3)
        angle = spin + 0.5 * self.roll.at(t)
        # _PATCH / 2 patch pixels are 1 / 0.62 lesion radii of reach * _RADIUS * size frame pixels each.
        zoom = reach * _RADIUS * self.size / 0.62 / (_PATCH / 2)
        c, s = zoom * math.cos(angle), zoom * math.sin(angle)
        squeeze = 1.0 + 0.08 * math.sin(t / 5.0)
        centre = self.size / 2 + np.array([x, y]) * _RADIUS * self.size
        turn = np.array([[c * squeeze, -s], [s * squeeze, c]])
        move = np.hstack([turn, (centre - turn @ np.full(2, _PATCH / 2))[:, None]])
        patch = _patch(self.seed, number, label, self.mucosa)
        method = cv2.INTER_AREA if zoom < 0.5 else cv2.INTER_LINEAR
        return np.asarray(cv2.warpAffine(patch, move, (self.size, self.size), flags=method), np.uint8)

    def _caption(self, frame: Frame, t: float) -> Frame:
        clock = f"{int(t) // 3600:02d}:{int(t) // 60 % 60:02d}:{int(t) % 60:02d}"
        font, height = cv2.FONT_HERSHEY_SIMPLEX, self.size / 336
        cv2.putText(
            frame, "PHANTOM", (3, int(12 * height)), font, 0.34 * height, (190, 190, 190), 1, cv2.LINE_AA
        )
        cv2.putText(frame, clock, (3, self.size - 4), font, 0.34 * height, (190, 190, 190), 1, cv2.LINE_AA)
        return frame


def _lay_over(frame: Frame, light: Frame, glints: Frame, lesion: Frame) -> tuple[Frame, Frame, Frame]:
    """Wall, light and glints with the lesion on it: it is never lost in the lumen's dark."""
    x, y, w, h = cv2.boundingRect(lesion[..., 3])
    box = (slice(y, y + h), slice(x, x + w))
    alpha = lesion[box][..., 3:].astype(np.float32) / 255.0
    frame[box] = np.rint(frame[box] * (1.0 - alpha) + lesion[box][..., :3] * alpha).astype(np.uint8)
    light[box] = np.maximum(light[box], (alpha * np.float32(165)).astype(np.uint8))
    glints[box] = (glints[box] * (1.0 - alpha[..., 0])).astype(np.uint8)
    return frame, light, glints


@lru_cache(maxsize=4)
def _scene(seed: int, size: int) -> _Scene:
    return _Scene(seed, size)


@lru_cache(maxsize=16)
def _patch(seed: int, number: int, label: str, mucosa: tuple[float, float, float]) -> Frame:
    rng = np.random.default_rng([seed, 4, number])
    patch = draw_patch(label, rng, size=_PATCH, mucosa=mucosa)
    patch.setflags(write=False)
    return patch


def _mucosa_colour(rng: np.random.Generator) -> tuple[float, float, float]:
    """The wall's RGB: between the orange, pink and brownish white balances of the brands in use."""
    tones = np.array(
        [(216, 142, 76), (208, 140, 112), (200, 148, 104), (206, 148, 66), (196, 112, 92)], np.float32
    )
    mix = rng.dirichlet(np.full(len(tones), 0.5))
    red, green, blue = (float(c) for c in (mix @ tones) * rng.uniform(0.94, 1.06, 3))
    return red, green, blue


def _paint_wall(rng: np.random.Generator, n: int, mucosa: tuple[float, float, float]) -> tuple[Frame, Frame]:
    """The unrolled wall, uint8 RGB (n, n, 3), angle across and depth down, and its gloss, uint8 (n, n); both periodic."""
    at = np.arange(n, dtype=np.float32) / n * np.float32(_TAU)
    rings, pleats = int(rng.integers(3, 8)), int(rng.integers(2, 6))
    bend = noise(rng, n, 4, octaves=3)
    ring = np.abs(np.sin(at[:, None] * (rings / 2) + 0.9 * bend))
    pleat = np.abs(np.sin(at[None, :] * (pleats / 2) + 0.7 * noise(rng, n, 4, octaves=2)))
    there = np.clip(0.5 + 0.5 * noise(rng, n, 2, octaves=2), 0, 1)
    height = np.sqrt(ring) * there + np.sqrt(pleat) * (1 - there) * rng.uniform(0.4, 1.0) + 0.12 * bend
    height = cv2.GaussianBlur(np.asarray(height, np.float32), (0, 0), n / 200, borderType=cv2.BORDER_REFLECT)
    slope = (height - np.roll(height, n // 64, axis=0)) * np.float32(1.1)
    sideways = (height - np.roll(height, n // 64, axis=1)) * np.float32(0.5)
    relief = rng.uniform(0.35, 0.8)
    villi = noise(rng, n, n // 8, octaves=2, falloff=0.9)
    shade = 0.92 + relief * (0.32 * (height - height.mean()) - 0.55 * slope + 0.4 * sideways)
    shade = np.clip(shade + rng.uniform(0.012, 0.05) * villi, 0.15, 1.3).astype(np.float32)
    blush = noise(rng, n, 4, octaves=4)
    rgb = np.power(shade[..., None], np.array([0.8, 1.15, 1.35], np.float32)) * np.array(mucosa, np.float32)
    rgb *= 1.0 + blush[..., None] * np.array([0.02, -0.035, -0.05], np.float32)
    _strew_residue(rng, rgb, n)
    _blow_bubbles(rng, rgb, n)
    gloss = noise(rng, n, n // 16, octaves=2) + 0.8 * noise(rng, n, 8) + 2.0 * (shade - 0.92)
    limit = rng.uniform(3.0, 4.0)
    shine = np.clip((gloss - limit) * 420.0, 0, 255).astype(np.uint8)
    return np.clip(rgb, 0, 255).astype(np.uint8), shine


def _strew_residue(rng: np.random.Generator, rgb: Floats, n: int) -> None:
    """Yellow-green food residue in crumbs, on some recordings."""
    if rng.random() < 0.45:
        return
    where = noise(rng, n, 4, octaves=6, falloff=0.65) - rng.uniform(1.5, 2.6)
    cover = np.clip(where * 2.5, 0, 0.85)[..., None]
    lumps = (1.0 + 0.16 * noise(rng, n, n // 16, octaves=3))[..., None]
    paint = np.array([rng.uniform(150, 200), rng.uniform(140, 180), rng.uniform(50, 95)], np.float32)
    rgb *= 1 - cover
    rgb += cover * paint * lumps


def _blow_bubbles(rng: np.random.Generator, rgb: Floats, n: int) -> None:
    """Clusters of bubbles: a dark ring with a bright crescent and a glint each."""
    for _ in range(int(rng.integers(1, 7))):
        middle = rng.uniform(0.1, 0.9, 2) * n
        for _ in range(int(rng.integers(3, 14))):
            x, y = (int(v) for v in middle + rng.normal(0, n * 0.025, 2))
            r = max(2, int(n * rng.gamma(2.0, 0.0032)))
            pale, dark = (float(v) for v in rng.uniform((190, 60), (235, 90)))
            cv2.circle(rgb, (x, y), r, (dark * 1.2, dark, dark * 0.5), max(1, r // 6), cv2.LINE_AA)
            cv2.ellipse(
                rgb,
                (x, y),
                (r - 1, r - 1),
                0,
                200,
                290,
                (pale, pale, pale * 0.8),
                max(1, r // 7),
                cv2.LINE_AA,
            )
            cv2.circle(rgb, (x + r // 3, y + r // 3), max(1, r // 6), (250, 250, 240), -1, cv2.LINE_AA)


def training_frames(
    count: int, *, size: int = 224, seed: int, labels: Sequence[str] = LESION_LABELS
) -> Iterator[tuple[Frame, str]]:
    """``count`` pairs of a frame (uint8 RGB, (size, size, 3), caption and black border included) and its label key.

    Each is of a scene of its own, from ``TRAINING_SEEDS``; half of them, by chance, are ``normal``, the others of
    ``labels`` in equal shares. The first frames of a longer series are those of a shorter one. Raises ``UsageError``.
    """
    if count < 0:
        raise UsageError(f"count is {count}, allowed is 0 or more")
    unknown = [label for label in labels if label not in LESION_LABELS]
    if unknown or not labels:
        raise UsageError(f"labels are {list(labels)}, allowed is some of {', '.join(LESION_LABELS)}")
    Phantom(seed, size=size, lesions=())
    return (_training_frame(seed, number, size, labels) for number in range(count))


def _training_frame(seed: int, number: int, size: int, labels: Sequence[str]) -> tuple[Frame, str]:
    rng = np.random.default_rng([seed, 5, number])
    scene_seed = int(rng.integers(TRAINING_SEEDS.start, TRAINING_SEEDS.stop))
    index = int(rng.integers(200, 240))
    lesions: tuple[PlantedLesion, ...] = ()
    if rng.random() < 0.5:
        lesions = (PlantedLesion(str(rng.choice(list(labels))), 100.0, 120.0),)
    phantom = Phantom(scene_seed, size=size, lesions=lesions)
    return phantom.render(index), phantom.truth(index)


def write_recording(path: str | os.PathLike[str], phantom: Phantom, *, fps: float | None = None) -> None:
    """Writes ``phantom`` as H.264 (4:2:0, untagged colour) in MP4, frame i at i / ``fps`` seconds, replacing ``path``.

    ``fps`` defaults to the capture rate; another one makes an exported recording that plays faster. The same call leaves
    the same bytes. Raises ``UsageError`` for a rate that cannot be, ``OutputError`` where the file cannot be written.
    """
    rate = (
        Fraction(phantom.capture_fps if fps is None else fps).limit_denominator(1001)
        if _usable(fps)
        else None
    )
    if not rate:
        raise UsageError(f"fps is {fps}, allowed is a number from 1/1000 to 1000")
    target = Path(path)
    temporary: str | None = None
    try:
        handle, temporary = tempfile.mkstemp(suffix=".mp4.part", prefix=".", dir=target.parent)
        os.close(handle)
        _encode(temporary, phantom, rate)
        os.replace(temporary, target)
        temporary = None
    except (OSError, av.FFmpegError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OutputError(
            f"cannot write {target}: {reason}", hint="choose a folder that can be written"
        ) from error
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


def _usable(fps: float | None) -> bool:
    return fps is None or (math.isfinite(fps) and 1e-3 <= fps <= 1e3)


def _encode(path: str, phantom: Phantom, rate: Fraction) -> None:
    # One thread and no B-frames: the bytes do not depend on the machine's cores and the file needs no edit list.
    options = {"preset": "veryfast", "crf": "19", "threads": "1", "bf": "0", "g": "32"}
    with av.open(path, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=rate, options=options)
        stream.width = stream.height = phantom.size
        stream.pix_fmt = "yuv420p"
        stream.time_base = 1 / rate
        for index in range(phantom.frames):
            picture = av.VideoFrame.from_ndarray(phantom.render(index), format="rgb24")
            picture.pts, picture.time_base = index, 1 / rate
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
