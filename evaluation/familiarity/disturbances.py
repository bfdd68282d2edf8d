"""Make frames on which familiarity is measured: foreign pictures, overlays, tints, blur, and occlusion.

All pictures are drawn by code from a seed, or are real frames that were changed, and have the size of the model's
input. Each disturbance says what a rule has to do with it: catch it, let it pass, or only report it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

__all__ = ["DISTURBANCES", "Disturbance", "Expectation"]

Pixels = npt.NDArray[np.uint8]
Rng = np.random.Generator
Expectation = Literal["catch", "pass", "report"]

_BARS = ((192, 192, 192), (192, 192, 0), (0, 192, 192), (0, 192, 0), (192, 0, 192), (192, 0, 0), (0, 0, 192))
_TEXT = ("Patient 00417", "File  Edit  View", "14:02:55", "LOW BATTERY", "Menu", "Select study", "No signal")
_LUMA = np.array([0.299, 0.587, 0.114])


@dataclass(frozen=True)
class Disturbance:
    """One way in which a frame differs from those that the model was trained on.

    Attributes:
        name: Names the row of a table.
        expected: ``catch`` if such frames have to be set aside, ``pass`` if not, ``report`` if either is allowed.
        draw: Takes a real frame, uint8 RGB (size, size, 3), and a random generator. Returns a frame of that shape.
    """

    name: str
    expected: Expectation
    draw: Callable[[Pixels, Rng], Pixels]

    def apply(self, frames: Sequence[Pixels] | Pixels, seed: int = 0) -> Pixels:
        """Return disturbed frames, uint8 RGB (n, size, size, 3), black where every given frame is black.

        Args:
            frames: Model inputs, uint8 RGB (n, size, size, 3).
            seed: Of the random generator; the same seed gives the same frames.
        """
        rng = np.random.default_rng(seed)
        drawn = np.stack([self.draw(frame, rng) for frame in frames])
        return drawn * _field(np.asarray(frames).shape[1])[..., None]


def _field(size: int) -> Pixels:
    """Return a mask of the field of view of a model input, uint8 (size, size), 1 inside the inscribed circle."""
    at = np.arange(size) + 0.5 - size / 2
    inside: Pixels = (at[:, None] ** 2 + at[None, :] ** 2 <= (size / 2) ** 2).astype(np.uint8)
    return inside


def _rounded(values: npt.NDArray[np.floating]) -> Pixels:
    rounded: Pixels = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return rounded


# --- pictures without a frame ---------------------------------------------------------------------------------


def _plain(frame: Pixels, rng: Rng, *, colour: tuple[int, int, int], noise: float) -> Pixels:
    return _rounded(np.array(colour) + noise * rng.standard_normal(frame.shape))


def _colour_bars(frame: Pixels, rng: Rng) -> Pixels:
    size = len(frame)
    bars = np.array(_BARS, np.uint8)[np.arange(size) * len(_BARS) // size]
    return np.ascontiguousarray(np.broadcast_to(np.roll(bars, int(rng.integers(size)), axis=0), frame.shape))


def _test_card(frame: Pixels, rng: Rng) -> Pixels:
    size = len(frame)
    card = np.full_like(frame, int(rng.integers(90, 170)))
    step = size // int(rng.integers(6, 11))
    card[::step] = 255
    card[:, ::step] = 255
    ramp = np.linspace(0, 255, size).astype(np.uint8)
    card[size // 2 : size // 2 + size // 8] = ramp[None, :, None]
    cv2.circle(card, (size // 2, size // 2), size // 3, (255, 255, 255), 2)
    return card


def _gradient(frame: Pixels, rng: Rng) -> Pixels:
    size = len(frame)
    ends = rng.integers(0, 256, (2, 3))
    if np.abs(ends[0] - ends[1]).sum() < 200:
        ends[1] = 255 - ends[0]
    share = np.linspace(0, 1, size)[:, None, None]
    drawn = _rounded(ends[0] * (1 - share) + ends[1] * share + np.zeros(frame.shape))
    return np.ascontiguousarray(np.rot90(drawn, int(rng.integers(4))))


def _static(frame: Pixels, rng: Rng, *, coloured: bool) -> Pixels:
    size = len(frame)
    noise = rng.integers(0, 256, (size, size, 3 if coloured else 1))
    return np.ascontiguousarray(np.broadcast_to(noise, frame.shape).astype(np.uint8))


def _text_page(frame: Pixels, rng: Rng, *, paper: tuple[int, int, int], ink: tuple[int, int, int]) -> Pixels:
    page = _plain(frame, rng, colour=paper, noise=2)
    for line in range(6, len(frame), max(6, int(len(frame) * rng.uniform(0.06, 0.1)))):
        _write(page, rng, (int(rng.integers(0, 12)), line), ink, scale=rng.uniform(0.25, 0.35))
    return page


def _fractal(size: int, rng: Rng, slope: float) -> npt.NDArray[np.float64]:
    """Return noise with the falling spectrum of natural scenes, mean 0 and standard deviation 1, (size, size)."""
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(size), np.fft.fftfreq(size)))
    frequency[0, 0] = 1
    spectrum = np.fft.fft2(rng.standard_normal((size, size))) / frequency**slope
    spectrum[0, 0] = 0
    values = np.real(np.fft.ifft2(spectrum))
    return np.asarray(values / values.std(), np.float64)


def _scene(frame: Pixels, rng: Rng, *, colour: tuple[int, int, int], spread: float) -> Pixels:
    """Draw a natural-looking texture around a colour, and some objects with straight edges."""
    size = len(frame)
    ground = np.array(colour) * rng.uniform(0.8, 1.2) * (1 + 0.3 * _fractal(size, rng, 1.2)[..., None])
    drawn = _rounded(ground + spread * np.stack([_fractal(size, rng, 1.2) for _ in range(3)], axis=-1))
    for _ in range(int(rng.integers(2, 6))):
        first, last = (tuple(rng.integers(0, size, 2).tolist()) for _ in range(2))
        shade = _rounded(np.array(colour) * rng.uniform(0.3, 1.6) + rng.normal(0, spread, 3))
        cv2.rectangle(drawn, first, last, tuple(shade.tolist()), -1)
    return np.asarray(cv2.GaussianBlur(drawn, (3, 3), 0), np.uint8)


def _packaging(frame: Pixels, rng: Rng) -> Pixels:
    size = len(frame)
    drawn = np.full_like(frame, 235)
    for _ in range(4):
        first, last = (tuple(rng.integers(0, size, 2).tolist()) for _ in range(2))
        hue = np.array([[[int(rng.integers(20, 165)), 200, 220]]], np.uint8)
        cv2.rectangle(drawn, first, last, cv2.cvtColor(hue, cv2.COLOR_HSV2RGB)[0, 0].tolist(), -1)
    for line in range(12, size, 18):
        _write(drawn, rng, (8, line), (20, 20, 20), scale=0.35)
    return drawn


def _hand(frame: Pixels, rng: Rng) -> Pixels:
    """Draw a hand in front of a grey room."""
    size = len(frame)
    drawn = _scene(frame, rng, colour=(120, 122, 125), spread=6)
    tone = np.array([205, 160, 135]) * rng.uniform(0.5, 1.1)
    skin = _rounded(tone * (1 + 0.08 * _fractal(size, rng, 1.5)[..., None]))
    shape = np.zeros((size, size), np.uint8)
    cv2.circle(shape, (size // 2, size * 3 // 4), size // 4, 1, -1)
    for finger in range(5):
        tip = (int(size * (0.2 + 0.15 * finger)), int(size * rng.uniform(0.1, 0.3)))
        cv2.line(shape, (size // 2, size * 3 // 4), tip, 1, size // 10)
    return np.where(shape[..., None] > 0, skin, drawn)


# --- overlays on a frame --------------------------------------------------------------------------------------


def _write(
    picture: Pixels, rng: Rng, at: tuple[int, int], ink: tuple[int, int, int], *, scale: float
) -> None:
    words = "  ".join(rng.choice(_TEXT, 3).tolist())
    cv2.putText(picture, words, at, cv2.FONT_HERSHEY_SIMPLEX, scale * len(picture) / 128, ink, 1)


def _menu(frame: Pixels, rng: Rng, *, panel: tuple[int, int, int], ink: tuple[int, int, int]) -> Pixels:
    """Cover a third of the field of view with a panel of text."""
    size = len(frame)
    drawn = frame.copy()
    left, top = (int(size * rng.uniform(0.15, 0.3)) for _ in range(2))
    right, low = left + int(size * 0.55), top + int(size * 0.5)
    drawn[top:low, left:right] = panel
    block = drawn[top:low, left:right].copy()
    for line in range(10, len(block), 12):
        cv2.putText(block, str(rng.choice(_TEXT)), (4, line), cv2.FONT_HERSHEY_SIMPLEX, 0.33, ink, 1)
    drawn[top:low, left:right] = block
    return drawn


def _captions(frame: Pixels, rng: Rng, *, ink: tuple[int, int, int], lines: int) -> Pixels:
    """Write lines of text across the frame."""
    drawn = frame.copy()
    for line in range(lines):
        row = int(len(frame) * (0.2 + 0.7 * line / lines))
        _write(drawn, rng, (int(len(frame) * 0.05), row), ink, scale=0.4)
    return drawn


def _screen(frame: Pixels, rng: Rng) -> Pixels:
    """Show the frame at half its size in a window on a desktop."""
    size = len(frame)
    drawn = np.full_like(frame, (58, 110, 165) if rng.random() < 0.5 else (212, 208, 200))
    small = cv2.resize(frame, (size // 2, size // 2), interpolation=cv2.INTER_AREA)
    top, left = (int(v) for v in rng.integers(size // 6, size // 3, 2))
    drawn[top - 8 : top, left : left + size // 2] = (0, 0, 128)
    drawn[top : top + size // 2, left : left + size // 2] = small
    for line in range(10, size, 16):
        if line < top - 8 or line > top + size // 2 + 8:
            _write(drawn, rng, (10, line), (255, 255, 255), scale=0.35)
    return drawn


# --- changes of a frame ---------------------------------------------------------------------------------------


def _cast(frame: Pixels, rng: Rng, *, gains: tuple[float, float, float], gamma: float = 1.0) -> Pixels:
    return _rounded(255 * (frame / 255) ** gamma * np.array(gains))


def _saturate(frame: Pixels, rng: Rng, *, factor: float) -> Pixels:
    grey = (frame @ _LUMA)[..., None]
    return _rounded(grey + factor * (frame - grey))


def _blur(frame: Pixels, rng: Rng, *, sigma: float) -> Pixels:
    """Blur a frame; ``sigma`` is in hundredths of its side."""
    return np.asarray(cv2.GaussianBlur(frame, (0, 0), sigma * len(frame) / 100), np.uint8)


def _grain(frame: Pixels, rng: Rng, *, noise: float) -> Pixels:
    return _rounded(frame + noise * rng.standard_normal(frame.shape))


def _recode(frame: Pixels, rng: Rng, *, quality: int) -> Pixels:
    data = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)


def _turn_hue(frame: Pixels, rng: Rng, *, degrees: int) -> Pixels:
    hsv = cv2.cvtColor(frame, cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0].astype(np.int64) + degrees // 2) % 180
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), np.uint8)


def _occlude(frame: Pixels, rng: Rng, *, share: float) -> Pixels:
    """Cover a share of the field of view with black, from one side."""
    size = len(frame)
    inside = _field(size)
    rows = np.cumsum(inside.sum(axis=1)) <= share * inside.sum()
    drawn = np.rot90(frame, int(rng.integers(4))).copy()
    drawn[rows] = 0
    return drawn


def _named(
    expected: Expectation, kinds: dict[str, Callable[[Pixels, Rng], Pixels]]
) -> tuple[Disturbance, ...]:
    return tuple(Disturbance(name, expected, draw) for name, draw in kinds.items())


_FOREIGN = _named(
    "catch",
    {
        "black": partial(_plain, colour=(0, 0, 0), noise=0),
        "black, sensor noise": partial(_plain, colour=(5, 4, 5), noise=3),
        "white": partial(_plain, colour=(250, 250, 250), noise=3),
        "grey": partial(_plain, colour=(128, 128, 128), noise=2),
        "blue screen": partial(_plain, colour=(10, 20, 200), noise=1),
        "green screen": partial(_plain, colour=(10, 150, 40), noise=1),
        "colour bars": _colour_bars,
        "test card": _test_card,
        "gradient": _gradient,
        "static, grey": partial(_static, coloured=False),
        "static, coloured": partial(_static, coloured=True),
        "page of text": partial(_text_page, paper=(245, 244, 240), ink=(20, 20, 20)),
        "terminal": partial(_text_page, paper=(8, 8, 8), ink=(60, 230, 60)),
        "room, grey": partial(_scene, colour=(125, 127, 130), spread=8),
        "room, warm light": partial(_scene, colour=(150, 130, 105), spread=12),
        "foliage": partial(_scene, colour=(70, 115, 50), spread=20),
        "sky": partial(_scene, colour=(110, 150, 205), spread=14),
        "hand": _hand,
        "packaging": _packaging,
    },
)
_OVERLAYS = _named(
    "catch",
    {
        "menu, white": partial(_menu, panel=(240, 240, 240), ink=(10, 10, 10)),
        "menu, dark blue": partial(_menu, panel=(20, 30, 110), ink=(255, 255, 255)),
        "menu, dark grey": partial(_menu, panel=(60, 60, 60), ink=(230, 230, 230)),
        "captions, white": partial(_captions, ink=(255, 255, 255), lines=6),
        "captions, green": partial(_captions, ink=(0, 255, 0), lines=6),
        "screen recording": _screen,
    },
)
_FAMILIAR = _named(
    "pass",
    {
        "tint, warmer": partial(_cast, gains=(1.05, 0.97, 0.85)),
        "tint, cooler": partial(_cast, gains=(0.92, 1.0, 1.12)),
        "tint, greener": partial(_cast, gains=(0.92, 1.06, 0.95)),
        "tint, redder": partial(_cast, gains=(1.1, 0.92, 0.92)),
        "brighter": partial(_cast, gains=(1.15, 1.15, 1.15)),
        "darker": partial(_cast, gains=(0.8, 0.8, 0.8)),
        "gamma .8": partial(_cast, gains=(1, 1, 1), gamma=0.8),
        "gamma 1.25": partial(_cast, gains=(1, 1, 1), gamma=1.25),
        "saturation .8": partial(_saturate, factor=0.8),
        "saturation 1.2": partial(_saturate, factor=1.2),
        "mild blur": partial(_blur, sigma=0.8),
        "mild noise": partial(_grain, noise=3),
        "JPEG quality 50": partial(_recode, quality=50),
    },
)
_REPORTED = _named(
    "report",
    {
        "hue by 30 degrees": partial(_turn_hue, degrees=30),
        "hue by 60 degrees": partial(_turn_hue, degrees=60),
        "hue by 120 degrees": partial(_turn_hue, degrees=120),
        "hue by 180 degrees": partial(_turn_hue, degrees=180),
        "without colour": partial(_saturate, factor=0.0),
        "occlusion of 25 %": partial(_occlude, share=0.25),
        "occlusion of 50 %": partial(_occlude, share=0.5),
        "occlusion of 75 %": partial(_occlude, share=0.75),
        "strong blur": partial(_blur, sigma=4),
        "strong noise": partial(_grain, noise=25),
        "two lines of captions": partial(_captions, ink=(255, 255, 255), lines=2),
    },
)
DISTURBANCES: tuple[Disturbance, ...] = (*_FOREIGN, *_OVERLAYS, *_FAMILIAR, *_REPORTED)
"""All disturbances, those to catch first. A frozen picture is not among them: it is no fault of a single frame."""
