"""Pictures in rows with captions, as one PNG: what ``explain`` shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from ._files import write_whole

__all__ = ["Tile", "channel_grid", "overlay", "sheet", "write_png"]

Picture = npt.NDArray[np.uint8]
Map = npt.NDArray[np.float32]

_TEXT, _GAP, _SCALE = 16, 6, 0.42
_PAPER, _INK = 255, (29, 29, 31)


@dataclass(frozen=True)
class Tile:
    """A picture, uint8 RGB HxWx3, and the line above it."""

    picture: Picture
    caption: str


def overlay(picture: Picture, activation: Map) -> Picture:
    """``picture`` (uint8 RGB HxWx3) with ``activation`` (h, w; 0..1) laid over it, from blue over green to red.

    Where the map is 0 the picture is left as it is.
    """
    height, width = picture.shape[:2]
    grown = cv2.resize(np.asarray(activation, np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    grown = np.clip(grown, 0, 1)
    colours = cv2.applyColorMap(np.asarray(np.round(grown * 255), np.uint8), cv2.COLORMAP_TURBO)[..., ::-1]
    share = (0.6 * np.sqrt(grown))[..., None]
    return np.asarray(np.round(picture * (1 - share) + colours * share), np.uint8)


def channel_grid(features: Map, *, most: int = 32, columns: int = 8, side: int = 64) -> Picture:
    """The channels of a layer's output (h, w, channels) as grey tiles, uint8 RGB; the liveliest ``most`` of them.

    Each channel is stretched to its own range, a constant one is black. They are in order of their standard
    deviation, so that dead channels come last.
    """
    deviation = features.std(axis=(0, 1))
    chosen = np.argsort(-deviation, kind="stable")[:most]
    rows = -(-len(chosen) // columns)
    grid = np.full((rows * (side + 2), columns * (side + 2), 3), _PAPER, np.uint8)
    for place, channel in enumerate(chosen):
        values = features[..., channel].astype(np.float32)
        low, span = float(values.min()), float(np.ptp(values))
        grey = np.asarray(np.round((values - low) / (span or 1.0) * 255), np.uint8)
        top, left = place // columns * (side + 2), place % columns * (side + 2)
        tile = cv2.resize(grey, (side, side), interpolation=cv2.INTER_NEAREST)
        grid[top : top + side, left : left + side] = tile[..., None]
    return grid


def sheet(rows: Sequence[tuple[str, Sequence[Tile]]]) -> Picture:
    """Rows of (heading, tiles) on white, uint8 RGB. Text is ASCII: other signs become question marks."""
    heights = [
        2 * _TEXT + _GAP + max((tile.picture.shape[0] for tile in tiles), default=0) for _, tiles in rows
    ]
    widths = [sum(tile.picture.shape[1] + _GAP for tile in tiles) for _, tiles in rows]
    longest = max((len(_ascii(heading)) * 8 for heading, _ in rows), default=0)
    paper = np.full((sum(heights) + _GAP, max([*widths, longest, 1]) + _GAP, 3), _PAPER, np.uint8)
    top = _GAP
    for (heading, tiles), height in zip(rows, heights, strict=True):
        _write(paper, heading, _GAP, top + _TEXT - 4)
        left = _GAP
        for tile in tiles:
            high, wide = tile.picture.shape[:2]
            _write(paper, _fit(tile.caption, wide), left, top + 2 * _TEXT - 4)
            paper[top + 2 * _TEXT : top + 2 * _TEXT + high, left : left + wide] = tile.picture
            left += wide + _GAP
        top += height
    return paper


def write_png(picture: Picture, path: str | Path) -> Path:
    """Write uint8 RGB as PNG, whole or not at all. Raises ``OutputError`` where that cannot be done."""
    done, data = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    assert done, "a uint8 picture can always be encoded"
    return write_whole(path, data.tobytes(), "the picture")


def _write(paper: Picture, text: str, left: int, baseline: int) -> None:
    place = (left, baseline)
    cv2.putText(paper, _ascii(text), place, cv2.FONT_HERSHEY_SIMPLEX, _SCALE, _INK, 1, cv2.LINE_AA)


def _fit(text: str, width: int) -> str:
    """What of ``text`` is no wider than ``width`` pixels."""
    text = _ascii(text)
    while text and cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, _SCALE, 1)[0][0] > width:
        text = text[:-1]
    return text


def _ascii(text: str) -> str:
    return text.encode("ascii", "replace").decode("ascii")
