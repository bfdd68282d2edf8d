"""Render the scene of a phantom recording: a view down a tube, its wall, its light, and a lesion on the wall.

The wall is a periodic texture of folds, villi, residue and bubbles, mapped to the frame in log-polar coordinates
around the lumen's centre. This map keeps angles, so one warp of the texture shows the capsule travelling (a shift
along the radius), rolling (a shift along the angle), and the lumen opening and closing. A lesion is a patch, laid
on the wall before the light is applied.
"""

from __future__ import annotations

import math
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from .lesions import LESION_RADIUS, PATCH_REACH, Floats, draw_patch, noise

__all__ = ["Scene", "find_scene"]

Frame = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

# The field of view's radius as a share of the frame's side. The corners are free for the caption.
_RADIUS = 0.48
_PATCH = 256
_TAU = 2.0 * math.pi


class _Wander:
    """A smooth random path between bounds: the sum of three slow sines. Periods are in seconds of capture time."""

    def __init__(
        self, rng: np.random.Generator, amplitude: float, fastest_s: float, slowest_s: float
    ) -> None:
        self._periods = rng.uniform(fastest_s, slowest_s, 3)
        self._phases = rng.uniform(0, _TAU, 3)
        self._amplitude = amplitude

    def at(self, t: float) -> float:
        return self._amplitude * float(np.sin(_TAU * t / self._periods + self._phases).sum()) / 1.8


class Scene:
    """Everything that stays the same in a recording: the wall's texture, the optics and the camera's path.

    Args:
        seed: number of the scene.
        size: width and height of a frame in pixels.
    """

    def __init__(self, seed: int, size: int) -> None:
        rng = np.random.default_rng([seed, 0])
        self.seed, self.size = seed, size
        # About one texel per pixel at the rim of the field of view, and a power of two, as ``noise`` needs.
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
            rng.uniform(0, 0.30) / k * np.sin(k * angles + rng.uniform(0, _TAU)) for k in (1, 2, 3, 4, 6)
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
        self.path_x, self.path_y = _Wander(rng, 0.4, 12, 60), _Wander(rng, 0.4, 12, 60)
        self.roll, self.lumen = _Wander(rng, 1.4, 25, 120), _Wander(rng, 1.0, 10, 50)
        self.travel, self.sway = rng.uniform(0.01, 0.06), _Wander(rng, 0.4, 10, 50)
        self.start = rng.uniform(0, _TAU, 2)

    def render(self, index: int, t: float, lesion: Frame | None) -> Frame:
        """Render one frame.

        Args:
            index: index of the frame; decides its sensor noise.
            t: capture time in seconds.
            lesion: the lesion as ``place`` returns it, or None.

        Returns:
            uint8 RGB (size, size, 3).
        """
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
        frame = _sample(self.wall, across, along)
        light = self._light(t, radius, swell[0])
        # Reflections slide over the wall as the lamp moves. They are saturated spots: half the resolution is enough.
        slide = np.float32(9.0 * math.sin(t / 3))
        glints = _sample(self.gloss, across[::2, ::2] + slide, along[::2, ::2])
        glints = np.asarray(cv2.resize(glints, (self.size, self.size)), np.uint8)
        if lesion is not None:
            frame, light, glints = _lay_over(frame, light, glints, lesion)
        lit = cv2.multiply(frame, light, scale=1 / 200)
        shine = cv2.multiply(glints, light[..., 1], scale=1 / 230)
        lit = cv2.add(lit, cv2.merge([shine, shine, shine]))
        jitter = np.random.default_rng([self.seed, 2, index]).integers(0, 61, 2)
        grain = self.grain[jitter[0] : jitter[0] + self.size, jitter[1] : jitter[1] + self.size]
        lit = cv2.subtract(cv2.add(lit, grain), np.full(4, 6.0))
        lit = cv2.multiply(lit, self.disc, scale=1 / 255)
        return self._caption(np.asarray(lit, np.uint8), t)

    def _light(self, t: float, radius: Floats, swell: npt.NDArray[np.floating]) -> Frame:
        """Return the light on the wall from lamp, lumen and bile, uint8 RGB (size, size, 3); 200 is full light."""
        small = (self.coarse, self.coarse)
        near = cv2.resize(radius, small, interpolation=cv2.INTER_AREA)
        wave = cv2.resize(np.asarray(swell, np.float32), small, interpolation=cv2.INTER_AREA)
        opening = 0.30 * (1.0 + 0.75 * math.tanh(self.lumen.at(t)))
        s = np.clip((near - 0.35 * opening) / (1.5 * opening + 0.12), 0.0, 1.0)
        lamp = (self.floor + (1.0 - self.floor) * s * s * (3 - 2 * s)) * self.vignette * self.exposure
        lamp = np.clip(lamp * (1.0 + 0.07 * wave), 0.02, 1.27)
        pool = np.clip(wave * 0.5 + 0.15 + self.lumen.at(t + 40) * 0.3, 0.0, 1.0) * self.bile_level
        # A dim wall stays red, because haemoglobin absorbs blue and green: these fall faster than the light.
        tint = 1.0 - pool[..., None] * (1.0 - self.bile)
        rgb = np.power(lamp[..., None], np.array([0.85, 1.1, 1.25], np.float32)) * tint
        coarse = np.clip(rgb * 200.0, 0, 255).astype(np.uint8)
        return np.asarray(
            cv2.resize(coarse, (self.size, self.size), interpolation=cv2.INTER_LINEAR), np.uint8
        )

    def place(self, number: int, label: str, share: float, grown: float, t: float) -> Frame:
        """Return a lesion at its place in the frame.

        Args:
            number: index of the lesion in the recording; decides its looks and path.
            label: one of ``LESION_LABELS``.
            share: the part of its time in view that has passed, 0 to 1.
            grown: its size relative to its full size, 0 to 1.
            t: capture time in seconds.

        Returns:
            uint8 RGBA (size, size, 4), not premultiplied by alpha.
        """
        rng = np.random.default_rng([self.seed, 3, number])
        low, high = LESION_RADIUS[label]
        reach = rng.uniform(low, high) * grown
        bearing, spin, drift = rng.uniform(0, _TAU, 3)
        off = rng.uniform(0.15, 0.5) * (1.0 - 0.5 * low)
        x = off * math.cos(bearing) + 0.22 * (share - 0.5) * math.cos(drift) + 0.05 * math.sin(t / 3.1)
        y = off * math.sin(bearing) + 0.22 * (share - 0.5) * math.sin(drift) + 0.05 * math.cos(t / 4.3)
        angle = spin + 0.5 * self.roll.at(t)
        # Half a patch (_PATCH / 2 pixels) spans 1 / PATCH_REACH lesion radii. In the frame, a lesion's radius is
        # reach * _RADIUS * size pixels.
        zoom = reach * _RADIUS * self.size / PATCH_REACH / (_PATCH / 2)
        c, s = zoom * math.cos(angle), zoom * math.sin(angle)
        squeeze = 1.0 + 0.08 * math.sin(t / 5.0)
        centre = self.size / 2 + np.array([x, y]) * _RADIUS * self.size
        turn = np.array([[c * squeeze, -s], [s * squeeze, c]])
        move = np.hstack([turn, (centre - turn @ np.full(2, _PATCH / 2))[:, None]])
        patch = _patch(self.seed, number, label, self.mucosa)
        method = cv2.INTER_AREA if zoom < 0.5 else cv2.INTER_LINEAR
        return np.asarray(cv2.warpAffine(patch, move, (self.size, self.size), flags=method), np.uint8)

    def _caption(self, frame: Frame, t: float) -> Frame:
        """Write "PHANTOM" and the capture time into the frame's corners."""
        clock = f"{int(t) // 3600:02d}:{int(t) // 60 % 60:02d}:{int(t) % 60:02d}"
        font, height = cv2.FONT_HERSHEY_SIMPLEX, self.size / 336
        cv2.putText(
            frame, "PHANTOM", (3, int(12 * height)), font, 0.34 * height, (190, 190, 190), 1, cv2.LINE_AA
        )
        cv2.putText(frame, clock, (3, self.size - 4), font, 0.34 * height, (190, 190, 190), 1, cv2.LINE_AA)
        return frame


def _sample(texture: Frame, across: Floats, along: Floats) -> Frame:
    warped = cv2.remap(texture, across, along, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
    return np.asarray(warped, np.uint8)


def _lay_over(frame: Frame, light: Frame, glints: Frame, lesion: Frame) -> tuple[Frame, Frame, Frame]:
    """Lay the lesion on wall, light and reflections. Raise the light on it, so that it shows in a dark lumen too."""
    x, y, w, h = cv2.boundingRect(lesion[..., 3])
    box = (slice(y, y + h), slice(x, x + w))
    alpha = lesion[box][..., 3:].astype(np.float32) / 255.0
    frame[box] = np.rint(frame[box] * (1.0 - alpha) + lesion[box][..., :3] * alpha).astype(np.uint8)
    light[box] = np.maximum(light[box], (alpha * np.float32(165)).astype(np.uint8))
    glints[box] = (glints[box] * (1.0 - alpha[..., 0])).astype(np.uint8)
    return frame, light, glints


@lru_cache(maxsize=4)
def find_scene(seed: int, size: int) -> Scene:
    """Return the scene of a seed; the last four are kept, since painting one takes longer than a frame."""
    return Scene(seed, size)


@lru_cache(maxsize=16)
def _patch(seed: int, number: int, label: str, mucosa: tuple[float, float, float]) -> Frame:
    rng = np.random.default_rng([seed, 4, number])
    patch = draw_patch(label, rng, size=_PATCH, mucosa=mucosa)
    patch.setflags(write=False)
    return patch


def _mucosa_colour(rng: np.random.Generator) -> tuple[float, float, float]:
    """Return the wall's colour, RGB 0 to 255: a mix of the orange, pink and brownish tones that capsule brands show."""
    tones = np.array(
        [(216, 142, 76), (208, 140, 112), (200, 148, 104), (206, 148, 66), (196, 112, 92)], np.float32
    )
    mix = rng.dirichlet(np.full(len(tones), 0.5))
    red, green, blue = (float(c) for c in (mix @ tones) * rng.uniform(0.94, 1.06, 3))
    return red, green, blue


def _paint_wall(rng: np.random.Generator, n: int, mucosa: tuple[float, float, float]) -> tuple[Frame, Frame]:
    """Return the unrolled wall, uint8 RGB (n, n, 3), and its gloss, uint8 (n, n). Angle runs across, depth down."""
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
    villi = noise(rng, n, n // 8, octaves=3, falloff=0.9)
    shade = 0.92 + relief * (0.32 * (height - height.mean()) - 0.55 * slope + 0.4 * sideways)
    # A ring-shaped fold casts a shadow on the wall behind its crest. The shadow fades with distance.
    behind = 1.0 - np.mod(at[:, None] * (rings / _TAU) + 0.22 * bend, 1.0)
    shadow = np.exp(-behind / rng.uniform(0.10, 0.22)) * np.minimum(behind / 0.012, 1.0)
    crest = np.exp(-(1.0 - behind) / 0.10)
    pleated = np.exp(-((pleat / 0.45) ** 2)) * (1 - there)
    deep = rng.uniform(0.45, 0.85) * np.clip(1.6 * there - 0.2, 0.0, 1.0)
    shade *= (1.0 - deep * shadow + 0.16 * deep * crest) * (1.0 - rng.uniform(0.1, 0.3) * pleated)
    shade = np.clip(shade + rng.uniform(0.015, 0.06) * villi, 0.15, 1.3).astype(np.float32)
    blush = noise(rng, n, 4, octaves=4)
    rgb = np.power(shade[..., None], np.array([0.8, 1.15, 1.35], np.float32)) * np.array(mucosa, np.float32)
    rgb *= 1.0 + blush[..., None] * np.array([0.02, -0.035, -0.05], np.float32)
    _strew_residue(rng, rgb, n)
    _blow_bubbles(rng, rgb, n)
    gloss = noise(rng, n, n // 8) + 0.8 * noise(rng, n, 8) + 2.0 * (shade - 0.92)
    limit = rng.uniform(3.0, 4.0)
    shine = np.clip((gloss - limit) * 420.0, 0, 255).astype(np.uint8)
    return np.clip(rgb, 0, 255).astype(np.uint8), shine


def _strew_residue(rng: np.random.Generator, rgb: Floats, n: int) -> None:
    """Add crumbs of yellow-green food residue; about half of all recordings have them."""
    if rng.random() < 0.45:
        return
    where = noise(rng, n, 4, octaves=6, falloff=0.65) - rng.uniform(1.5, 2.6)
    cover = np.clip(where * 2.5, 0, 0.85)[..., None]
    lumps = (1.0 + 0.16 * noise(rng, n, n // 16, octaves=3))[..., None]
    paint = np.array([rng.uniform(150, 200), rng.uniform(140, 180), rng.uniform(50, 95)], np.float32)
    rgb *= 1 - cover
    rgb += cover * paint * lumps


def _blow_bubbles(rng: np.random.Generator, rgb: Floats, n: int) -> None:
    """Add clusters of bubbles, each a dark ring with a bright crescent and a reflection."""
    for _ in range(int(rng.integers(1, 7))):
        middle = rng.uniform(0.1, 0.9, 2) * n
        for _ in range(int(rng.integers(3, 14))):
            x, y = (int(v) for v in middle + rng.normal(0, n * 0.025, 2))
            r = max(2, int(n * min(rng.gamma(2.0, 0.0032), 0.016)))
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
