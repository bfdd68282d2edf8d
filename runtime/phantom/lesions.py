"""Draw lesions as patches: small images with transparency, which the scene lays on its wall.

Each planted lesion is drawn once, in the colours of its recording and without light, which the scene adds later.
A frame then needs only one warp of the patch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np
import numpy.typing as npt

__all__ = ["LESION_LABELS", "LESION_RADIUS", "PATCH_REACH", "Floats", "draw_patch", "noise"]

Floats = npt.NDArray[np.float32]
Colour = Sequence[float]

# Smallest and largest radius of the lesion proper, as a share of the field of view's radius.
LESION_RADIUS: dict[str, tuple[float, float]] = {
    "bleeding": (0.55, 0.85),
    "polyp": (0.30, 0.46),
    "ulcer": (0.26, 0.42),
    "angioectasia": (0.28, 0.42),
    "foreign_body": (0.34, 0.52),
}
LESION_LABELS = tuple(LESION_RADIUS)
# The lesion's radius as a share of half the patch's side. The rest is room for rims, shadows and streaks.
PATCH_REACH = 0.62


def noise(
    rng: np.random.Generator,
    size: int,
    cells: int,
    *,
    octaves: int = 1,
    falloff: float = 0.5,
) -> Floats:
    """Return periodic value noise, float32 (size, size), with mean 0 and standard deviation 1.

    Args:
        rng: source of randomness.
        size: width and height in pixels, a power of two.
        cells: cells per side of the coarsest grid, a power of two.
        octaves: number of grids that are added, each with twice the cells of the one before.
        falloff: weight of each grid relative to the one before.
    """
    side, weight = cells, 1.0
    total = rng.standard_normal((side, side), dtype=np.float32)
    for _ in range(octaves - 1):
        if side >= size:
            break
        side, weight = side * 2, weight * falloff
        total = _widen(total, side) + np.float32(weight) * rng.standard_normal((side, side), dtype=np.float32)
    if side < size:
        total = _widen(total, size)
    mean, deviation = cv2.meanStdDev(total)
    return np.asarray((total - float(mean[0, 0])) / max(float(deviation[0, 0]), 1e-6), np.float32)


def _widen(grid: Floats, size: int) -> Floats:
    """Enlarge ``grid`` to ``size`` by cubic interpolation that wraps around at the edges."""
    step = size // len(grid)
    padded = cv2.copyMakeBorder(grid, 2, 2, 2, 2, cv2.BORDER_WRAP)
    wide = cv2.resize(padded, None, fx=step, fy=step, interpolation=cv2.INTER_CUBIC)
    return np.asarray(wide[2 * step : 2 * step + size, 2 * step : 2 * step + size], np.float32)


def _ramp(x: Floats, low: float, high: float) -> Floats:
    """Return a smooth step: 0 up to ``low``, 1 from ``high`` on."""
    s = np.clip((x - low) / (high - low), 0.0, 1.0)
    return np.asarray(s * s * (3.0 - 2.0 * s), np.float32)


class _Canvas:
    """A square image to which coloured layers with transparency are added.

    Coordinates ``x``, ``y`` and the distance ``r`` from the centre are in units of the lesion's radius. ``rgb`` is
    not premultiplied by ``alpha``. ``edge`` is 1, and falls to 0 towards the border of the patch.
    """

    def __init__(self, rng: np.random.Generator, size: int, mucosa: Colour) -> None:
        self.rng, self.size, self.mucosa = rng, size, np.asarray(mucosa, np.float32)
        at = ((np.arange(size, dtype=np.float32) + 0.5) / size * 2.0 - 1.0) / PATCH_REACH
        self.x, self.y = np.meshgrid(at, at)
        self.r: Floats = np.hypot(self.x, self.y)
        self.edge: Floats = _ramp(-np.maximum(np.abs(self.x), np.abs(self.y)), -1.58, -1.30)
        self.rgb = np.broadcast_to(self.mucosa, (size, size, 3)).copy()
        self.alpha = np.zeros((size, size), np.float32)

    def noise(self, cells: int, octaves: int = 3) -> Floats:
        return noise(self.rng, self.size, cells, octaves=octaves)

    def lay(self, colour: npt.ArrayLike, alpha: npt.ArrayLike) -> None:
        """Add a layer on top: a colour (RGB 0 to 255, one for all or one per pixel) and its opacity (0 to 1)."""
        over = np.clip(np.asarray(alpha, np.float32), 0.0, 1.0) * self.edge
        total = over + self.alpha * (1.0 - over)
        share = (over / np.maximum(total, 1e-6))[..., None]
        self.rgb = self.rgb * (1.0 - share) + np.asarray(colour, np.float32) * share
        self.alpha = total

    def turn(self, angle: float) -> tuple[Floats, Floats]:
        """Return the coordinates ``x`` and ``y`` rotated by ``angle`` (radians)."""
        c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        return np.asarray(c * self.x + s * self.y, np.float32), np.asarray(
            c * self.y - s * self.x, np.float32
        )


def _glints(canvas: _Canvas, where: Floats, count: int) -> None:
    """Add ``count`` short bright reflections where ``where`` (0 to 1) allows them."""
    for _ in range(count):
        gx, gy = canvas.rng.uniform(-0.6, 0.6, 2)
        length = canvas.rng.uniform(0.015, 0.045)
        u, v = canvas.turn(canvas.rng.uniform(0, np.pi))
        shift_u, shift_v = canvas.rng.uniform(-0.03, 0.03, 2)
        near = ((u - gx + shift_u) / (2.5 * length)) ** 2 + ((v - gy + shift_v) / length) ** 2
        canvas.lay((255, 240, 225), 0.9 * _ramp(-near, -1.0, -0.3) * where)


def _bleeding(canvas: _Canvas) -> None:
    rng = canvas.rng
    u, v = canvas.turn(rng.uniform(0, 2 * np.pi))
    lobes = canvas.noise(4, 4)
    stretch = rng.uniform(0.6, 1.0)
    body = 1.0 - np.hypot(u * stretch, v / max(stretch, 0.7)) + 0.22 * lobes
    # Streaks run from the pool along u.
    streak = cv2.GaussianBlur(canvas.noise(16, 2), (0, 0), sigmaX=canvas.size / 90)
    path = 0.18 * np.sin(3.0 * u + rng.uniform(0, 6)) + rng.uniform(-0.3, 0.3)
    run = _ramp(-np.abs(v - path) + 0.06 * streak, -rng.uniform(0.16, 0.3), -0.02) * _ramp(u, -0.2, 0.3)
    film = np.maximum(_ramp(body, 0.02, 0.30), 0.9 * run * _ramp(-u, -1.5, -1.1))
    deep = _ramp(body + 0.1 * streak, 0.25, 0.85)[..., None]
    bright = np.array([rng.uniform(150, 190), rng.uniform(14, 34), rng.uniform(4, 16)], np.float32)
    dark = np.array([rng.uniform(58, 95), rng.uniform(2, 10), rng.uniform(0, 6)], np.float32)
    canvas.lay((175, 40, 18), 0.45 * _ramp(body, -0.25, 0.2))
    canvas.lay((bright * (1 - deep) + dark * deep) * (1.0 + 0.08 * streak[..., None]), 0.93 * film)
    _glints(canvas, film, int(rng.integers(2, 6)))


def _polyp(canvas: _Canvas) -> None:
    rng = canvas.rng
    u, v = canvas.turn(rng.uniform(0, 2 * np.pi))
    ratio = rng.uniform(0.72, 1.0)
    d: Floats = np.hypot(u, v / np.float32(ratio)) + 0.05 * canvas.noise(4, 2)
    towards = rng.uniform(0, 2 * np.pi)
    lx, ly = np.float32(0.45 * np.cos(towards)), np.float32(0.45 * np.sin(towards))
    behind = np.asarray(np.hypot(canvas.x + 0.45 * lx, canvas.y + 0.45 * ly), np.float32)
    canvas.lay(canvas.mucosa * (0.42, 0.33, 0.28), 0.8 * _ramp(-behind, -1.32, -0.92))
    dome = np.sqrt(np.clip(1.0 - d * d, 0.0, 1.0))
    facing = np.clip(dome * 0.85 + (canvas.x * lx + canvas.y * ly) * 0.75, 0.0, 1.2)
    lump = 1.0 + 0.035 * canvas.noise(16, 3)
    shade = (0.42 + 0.68 * facing) * lump
    tone = canvas.mucosa * (rng.uniform(1.08, 1.2), rng.uniform(1.04, 1.16), rng.uniform(1.12, 1.4))
    canvas.lay(
        np.clip(tone * shade[..., None] ** np.array([0.85, 1.1, 1.2], np.float32), 0, 250),
        _ramp(-d, -1.0, -0.93),
    )
    off = ((canvas.x - 0.9 * lx) ** 2 + (canvas.y - 0.9 * ly) ** 2) / rng.uniform(0.006, 0.02)
    glint = np.asarray(-off - 0.3 * np.abs(canvas.noise(16, 2)), np.float32)
    canvas.lay((255, 244, 230), 0.9 * _ramp(glint, -1.2, -0.5))


def _ulcer(canvas: _Canvas) -> None:
    rng = canvas.rng
    u, v = canvas.turn(rng.uniform(0, 2 * np.pi))
    d: Floats = np.hypot(u, v / np.float32(rng.uniform(0.5, 0.95))) + 0.14 * canvas.noise(4, 4)
    grain = canvas.noise(16, 4)
    rim = canvas.mucosa * (0.98, 0.52, 0.50)
    canvas.lay(rim, 0.85 * _ramp(-d, -1.30, -0.85) * (0.9 + 0.1 * grain))
    canvas.lay(canvas.mucosa * (0.72, 0.28, 0.25), 0.75 * _ramp(-np.abs(d - 0.74), -0.13, -0.02))
    base = np.array([rng.uniform(222, 246), rng.uniform(200, 228), rng.uniform(120, 190)], np.float32)
    hollow = 0.90 + 0.10 * _ramp(d, 0.0, 0.6) + 0.07 * grain
    canvas.lay(np.clip(base * hollow[..., None], 0, 255), 0.97 * _ramp(-d, -0.78, -0.55))


def _angioectasia(canvas: _Canvas) -> None:
    rng = canvas.rng
    d = canvas.r + 0.20 * canvas.noise(8, 3)
    blush = np.array([rng.uniform(195, 225), rng.uniform(44, 72), rng.uniform(40, 62)], np.float32)
    density = rng.uniform(0.55, 0.85)
    canvas.lay(blush, density * _ramp(-d, -1.0, -0.3) * np.clip(0.8 + 0.25 * canvas.noise(32, 2), 0.2, 1))
    lines = np.zeros((canvas.size, canvas.size), np.uint8)
    for _ in range(int(rng.integers(30, 55))):
        heading = rng.uniform(0, 2 * np.pi)
        x, y = rng.normal(0, 0.3, 2)
        walk = [(x, y)]
        for _ in range(int(rng.integers(4, 11))):
            heading += rng.normal(0, 0.7)
            x, y = x + 0.08 * np.cos(heading), y + 0.08 * np.sin(heading)
            walk.append((x, y))
        points = ((np.array(walk) * PATCH_REACH + 1.0) / 2.0 * canvas.size * 16).astype(np.int32)
        cv2.polylines(
            lines, [points], False, float(rng.uniform(130, 255)), int(rng.integers(1, 3)), cv2.LINE_AA, 4
        )
    vessels = cv2.GaussianBlur(lines, (0, 0), canvas.size / 300).astype(np.float32) / 255.0
    canvas.lay((190, 14, 22), 0.9 * vessels * _ramp(-canvas.r, -1.3, -0.8))


def _foreign_body(canvas: _Canvas) -> None:
    rng = canvas.rng
    u, v = canvas.turn(rng.uniform(0, 2 * np.pi))
    kind = rng.choice(["tablet", "capsule", "fragment"])
    if kind == "tablet":
        inside = 1.0 - np.hypot(u, v / rng.uniform(0.7, 1.0))
    elif kind == "capsule":
        half = 0.42
        inside = (half - np.hypot(np.maximum(np.abs(u) - (1.0 - half), 0.0), v)) / half
    else:
        corners = np.sort(rng.uniform(0, 2 * np.pi, 5)) + np.arange(5) * 0.25
        depth = [rng.uniform(0.5, 0.85) - (np.cos(a) * u + np.sin(a) * v) for a in corners]
        inside = np.minimum(np.min(depth, axis=0), 1.1 - canvas.r)
    inside = np.asarray(inside, np.float32)
    canvas.lay(canvas.mucosa * (0.25, 0.2, 0.18), 0.75 * _ramp(inside, -0.16, 0.02))
    paints = [(238, 232, 214), (236, 236, 238), (60, 120, 205), (232, 205, 60), (70, 165, 95), (225, 90, 140)]
    first, second = rng.permutation(len(paints))[:2]
    paint: npt.NDArray[np.float32] = np.broadcast_to(
        np.array(paints[int(first) if kind != "tablet" else int(rng.integers(0, 2))], np.float32),
        (canvas.size, canvas.size, 3),
    )
    if kind == "capsule":
        paint = np.where(
            (u > rng.uniform(-0.15, 0.15))[..., None], np.array(paints[int(second)], np.float32), paint
        )
    bulge = 0.62 + 0.42 * np.sqrt(np.clip(inside, 0, 1)) if kind != "fragment" else 0.8 + 0.25 * u * 0.5
    shade = np.asarray(bulge + 0.02 * canvas.noise(16, 3), np.float32)[..., None]
    sharp = 2.5 / canvas.size
    canvas.lay(np.clip(paint * shade, 0, 255), _ramp(inside, 0.0, 2 * sharp))
    if kind != "tablet":
        canvas.lay(
            (255, 255, 250),
            0.85 * _ramp(-np.abs(v + 0.22), -0.06, -0.02) * _ramp(-np.abs(u), -0.5, -0.3) * (inside > 0),
        )
    else:
        canvas.lay(
            np.array(paints[0], np.float32) * 0.6, 0.6 * _ramp(-np.abs(v), -0.05, -0.02) * (inside > 0.12)
        )


_DRAWERS: dict[str, Callable[[_Canvas], None]] = {
    "bleeding": _bleeding,
    "polyp": _polyp,
    "ulcer": _ulcer,
    "angioectasia": _angioectasia,
    "foreign_body": _foreign_body,
}


def draw_patch(label: str, rng: np.random.Generator, *, size: int, mucosa: Colour) -> npt.NDArray[np.uint8]:
    """Draw one lesion.

    Args:
        label: one of ``LESION_LABELS``.
        rng: source of randomness; decides the lesion's looks.
        size: width and height of the patch in pixels, a power of two, 128 or more.
        mucosa: colour of the wall around the lesion, RGB 0 to 255.

    Returns:
        uint8 RGBA (size, size, 4), not premultiplied by alpha.
    """
    canvas = _Canvas(rng, size, mucosa)
    _DRAWERS[label](canvas)
    rgba = np.dstack([canvas.rgb, canvas.alpha * 255.0])
    return np.asarray(np.clip(np.rint(rgba), 0, 255), np.uint8)
