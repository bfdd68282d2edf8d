"""Show where in a frame a model found its evidence: class-activation maps of a model file, drawn on one sheet.

A model file has an output ``features``: the classifier applied at each position, before pooling. A map therefore
says exactly what each position adds to a label's logit (Zhou et al., Learning Deep Features for Discriminative
Localization, CVPR 2016), and needs no training framework. A map shows where the evidence lies that the model used. It
does not show where a lesion ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from capsule_edge.runtime.errors import ModelError, UsageError
from capsule_edge.runtime.events import activation_map
from capsule_edge.runtime.inference import Backend, ModelSpec
from capsule_edge.runtime.preprocessing import FieldOfView, find_field_of_view, preprocess

from ._files import write_text

__all__ = [
    "PICTURE_SIDE",
    "Explanation",
    "LabelMap",
    "Tile",
    "channel_grid",
    "chosen_labels",
    "explain",
    "overlay",
    "sheet",
    "write_png",
]

Rgb = npt.NDArray[np.uint8]
Map = npt.NDArray[np.float32]

PICTURE_SIDE = 224
"""Side in pixels of the picture in an explanation; a model with a larger input gets its own input size."""

_TEXT, _GAP, _FONT_SCALE = 16, 6, 0.42
_WHITE, _INK = 255, (29, 29, 31)


@dataclass(frozen=True)
class LabelMap:
    """The evidence for one label in one frame.

    Attributes:
        key: The label's key.
        probability: The model's probability of the label, 0..1.
        map: float32 (h, w) in 0..1, the evidence of each position as a share of the strongest position's.
        peak: Pixel (x to the right, y down) of the strongest position in the frame; None where no position has
            evidence.
    """

    key: str
    probability: float
    map: Map
    peak: tuple[int, int] | None

    def to_dict(self) -> dict[str, Any]:
        """Return the map as a JSON-ready document with ``label``, ``probability``, ``peak`` and ``map``."""
        return {
            "label": self.key,
            "probability": round(self.probability, 6),
            "peak": None if self.peak is None else {"x": self.peak[0], "y": self.peak[1]},
            "map": [[round(float(v), 4) for v in row] for row in self.map],
        }


@dataclass(frozen=True)
class Explanation:
    """A frame as the model sees it (uint8 RGB, square), and the maps of its labels, the most probable label first."""

    picture: Rgb
    labels: tuple[LabelMap, ...]


@dataclass(frozen=True)
class Tile:
    """A picture (uint8 RGB HxWx3) on a sheet, and the caption above it."""

    picture: Rgb
    caption: str


def chosen_labels(spec: ModelSpec, keys: Sequence[str]) -> tuple[str, ...]:
    """Return ``keys`` as a tuple. Raise ``UsageError`` if the model lacks one of them."""
    unknown = [key for key in keys if key not in spec.keys]
    if unknown:
        raise UsageError(
            f"the model has no label {', '.join(unknown)}, its labels are {', '.join(spec.keys)}"
        )
    return tuple(keys)


def explain(model: Backend, frame: Rgb, *, top: int = 3, labels: Sequence[str] = ()) -> Explanation:
    """Compute the activation maps of one frame.

    Args:
        model: An open model file.
        frame: uint8 RGB (height, width, 3).
        top: How many of the most probable labels to map; ignored where ``labels`` are given.
        labels: Keys of the labels to map.

    Raises:
        UsageError: The model does not have one of ``labels``.
        InputError: ``frame`` is not a frame.
        ModelError: The model has no activation maps.

    Example:
        >>> explanation = explain(open_model("model.int8.onnx"), frame, labels=["ulcer"])
        >>> explanation.labels[0].map.shape, explanation.labels[0].peak
    """
    spec = model.spec
    wanted = chosen_labels(spec, labels)
    if not spec.has_maps:
        raise ModelError(
            f"{model.path} has no activation maps: it does not end in global average pooling and one dense layer",
            hint="the answers alone come from 'capsule-edge evaluate' and 'capsule-edge run'",
        )
    box = find_field_of_view([frame])
    answer = model.run(preprocess(frame, spec.input, box)[None])
    p, features = answer.probabilities[0], answer.features[0]
    columns = [spec.keys.index(key) for key in wanted] or np.argsort(-p, kind="stable")[:top].tolist()
    large = replace(spec.input, size=max(PICTURE_SIDE, spec.input.size))
    area = box if spec.input.crop == "field_of_view" else FieldOfView.whole(frame)
    maps = [activation_map(features[..., column]) for column in columns]
    return Explanation(
        picture=preprocess(frame, large, box),
        labels=tuple(
            LabelMap(spec.keys[column], float(p[column]), activation, _peak(activation, area))
            for column, activation in zip(columns, maps, strict=True)
        ),
    )


def _peak(activation: Map, area: FieldOfView) -> tuple[int, int] | None:
    """Return the frame pixel at the centre of the strongest position's cell."""
    if not activation.any():
        return None
    row, column = np.unravel_index(int(activation.argmax()), activation.shape)
    x = area.left + (column + 0.5) / activation.shape[1] * area.width
    y = area.top + (row + 0.5) / activation.shape[0] * area.height
    return int(x), int(y)


def overlay(picture: Rgb, activation: Map) -> Rgb:
    """Lay an activation map over a picture, in colours from blue over green to red.

    Args:
        picture: uint8 RGB (height, width, 3).
        activation: float (h, w) in 0..1, enlarged to the picture.

    Returns:
        uint8 RGB (height, width, 3). Where the map is 0 the picture is unchanged.
    """
    height, width = picture.shape[:2]
    enlarged = cv2.resize(np.asarray(activation, np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    enlarged = np.clip(enlarged, 0, 1)
    levels = np.asarray(np.round(enlarged * 255), np.uint8)
    colours = cv2.applyColorMap(levels, cv2.COLORMAP_TURBO)[..., ::-1]
    opacity = (0.6 * np.sqrt(enlarged))[..., None]
    return np.asarray(np.round(picture * (1 - opacity) + colours * opacity), np.uint8)


def channel_grid(features: Map, *, most: int = 32, columns: int = 8, side: int = 64) -> Rgb:
    """Draw channels of a layer's output as grey tiles, in order of falling standard deviation.

    Each channel is stretched to its own range; a constant channel is black. Dead channels therefore come last.

    Args:
        features: float (h, w, channels).
        most: Draw at most this many channels.
        columns: Tiles in a row.
        side: Side of a tile in pixels.

    Returns:
        The grid, uint8 RGB.
    """
    deviation = features.std(axis=(0, 1))
    chosen = np.argsort(-deviation, kind="stable")[:most]
    rows = -(-len(chosen) // columns)
    grid = np.full((rows * (side + 2), columns * (side + 2), 3), _WHITE, np.uint8)
    for place, channel in enumerate(chosen):
        values = features[..., channel].astype(np.float32)
        low, span = float(values.min()), float(np.ptp(values))
        grey = np.asarray(np.round((values - low) / (span or 1.0) * 255), np.uint8)
        top, left = place // columns * (side + 2), place % columns * (side + 2)
        tile = cv2.resize(grey, (side, side), interpolation=cv2.INTER_NEAREST)
        grid[top : top + side, left : left + side] = tile[..., None]
    return grid


def sheet(rows: Sequence[tuple[str, Sequence[Tile]]]) -> Rgb:
    """Draw rows of tiles on a white sheet, each row below its heading.

    Args:
        rows: (heading, tiles) of each row. Characters outside ASCII become question marks.

    Returns:
        The sheet, uint8 RGB.
    """
    heights = [
        2 * _TEXT + _GAP + max((tile.picture.shape[0] for tile in tiles), default=0) for _, tiles in rows
    ]
    widths = [sum(tile.picture.shape[1] + _GAP for tile in tiles) for _, tiles in rows]
    longest = max((len(_ascii(heading)) * 8 for heading, _ in rows), default=0)
    paper = np.full((sum(heights) + _GAP, max([*widths, longest, 1]) + _GAP, 3), _WHITE, np.uint8)
    top = _GAP
    for (heading, tiles), height in zip(rows, heights, strict=True):
        _draw_text(paper, heading, _GAP, top + _TEXT - 4)
        left = _GAP
        for tile in tiles:
            high, wide = tile.picture.shape[:2]
            _draw_text(paper, _shorten(tile.caption, wide), left, top + 2 * _TEXT - 4)
            paper[top + 2 * _TEXT : top + 2 * _TEXT + high, left : left + wide] = tile.picture
            left += wide + _GAP
        top += height
    return paper


def write_png(picture: Rgb, path: str | Path) -> Path:
    """Write a picture (uint8 RGB) as a PNG file, completely or not at all, and return the path.

    Raises:
        OutputError: The file cannot be written.
    """
    done, data = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    assert done, "a uint8 picture can always be encoded"
    return write_text(path, data.tobytes())


def _draw_text(paper: Rgb, text: str, left: int, baseline: int) -> None:
    place = (left, baseline)
    cv2.putText(paper, _ascii(text), place, cv2.FONT_HERSHEY_SIMPLEX, _FONT_SCALE, _INK, 1, cv2.LINE_AA)


def _shorten(text: str, width: int) -> str:
    """Cut ``text`` at its end until it is at most ``width`` pixels wide."""
    text = _ascii(text)
    while text and cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, _FONT_SCALE, 1)[0][0] > width:
        text = text[:-1]
    return text


def _ascii(text: str) -> str:
    return text.encode("ascii", "replace").decode("ascii")
