"""Say where in a frame the model saw evidence for a label: the activation map, and contours of it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from capsule_edge.runtime.errors import UsageError
from capsule_edge.runtime.events import activation_map
from capsule_edge.runtime.inference import Backend, open_model
from capsule_edge.runtime.preprocessing import FieldOfView

__all__ = ["Activation", "OpenModels", "find_contours", "map_activation"]

Map = npt.NDArray[np.float32]
Point = tuple[float, float]
# An edge between two grid points: the left or upper one (x, y), and whether the other one lies below.
_Edge = tuple[int, int, bool]
# Side of a cell of the map after smoothing, in parts.
_FINER = 8
# For each of the 16 cases of a cell, the pairs of edges that the line enters and leaves by. Bits: top left, top right,
# bottom right, bottom left. Edges: 0 top, 1 right, 2 bottom, 3 left. The cell with larger values lies to the right.
_CASES: dict[int, tuple[tuple[int, int], ...]] = {
    1: ((3, 0),),
    2: ((0, 1),),
    3: ((3, 1),),
    4: ((1, 2),),
    5: ((3, 0), (1, 2)),
    6: ((0, 2),),
    7: ((3, 2),),
    8: ((2, 3),),
    9: ((2, 0),),
    10: ((0, 1), (2, 3)),
    11: ((2, 1),),
    12: ((1, 3),),
    13: ((1, 0),),
    14: ((0, 3),),
}


@dataclass(frozen=True, slots=True)
class Activation:
    """A label's class-activation map in a frame.

    Attributes:
        values: float32 (h, w), 0..1, a share of the strongest evidence.
        box: the part of the frame that the map covers, pixels of the upright frame.
    """

    values: Map
    box: FieldOfView


def map_activation(backend: Backend, pixels: npt.NDArray[np.uint8], label: str) -> Map:
    """Return a label's activation map for a model input, float32 (h, w), 0..1.

    Args:
        backend: the opened model.
        pixels: model input, uint8 RGB (size, size, 3).
        label: key of a label of the model.

    Raises:
        UsageError: the model has no such label, or no activation maps.
        BackendError: the model is closed, or the engine fails.
    """
    keys = backend.spec.keys
    if label not in keys:
        raise UsageError(f"label is {label[:80]!r}, allowed are {', '.join(keys)}")
    if not backend.spec.has_maps:
        raise UsageError(
            f"the model {backend.spec.name[:80]!r} has no activation maps: it does not end in global average pooling"
            " and one dense layer"
        )
    return activation_map(backend.run(pixels[None]).features[0][..., keys.index(label)])


def find_contours(values: Map, level: float = 0.5) -> list[list[Point]]:
    """Return the lines along which a map has the value ``level``, as closed polygons.

    The map is interpolated to a finer grid and taken as 0 outside, so each line is closed. Source of the method:
    Lorensen and Cline, Marching Cubes, SIGGRAPH 1987, in two dimensions.

    Args:
        values: float32 (h, w), 0..1.
        level: 0..1, both excluded.

    Returns:
        For each line its points (x, y), 0..1 of the width and height of the map. The first is not repeated at the end.

    Raises:
        UsageError: ``level`` is out of range.
    """
    if not 0 < level < 1:
        raise UsageError(f"level is {level}, allowed is more than 0 and less than 1")
    height, width = values.shape
    fine = cv2.resize(values, (width * _FINER, height * _FINER), interpolation=cv2.INTER_LINEAR)
    grid = np.pad(np.asarray(fine, np.float64), 1)
    # A pixel's value stands at its middle; the margin of zeros begins half a pixel outside.
    scale = np.array([width * _FINER, height * _FINER])
    return [
        [
            (float(x), float(y))
            for x, y in np.clip((np.array([_cross(grid, level, edge) for edge in line]) - 0.5) / scale, 0, 1)
        ]
        for line in _join(_segments(grid, level))
    ]


def _segments(grid: npt.NDArray[np.float64], level: float) -> dict[_Edge, _Edge]:
    """Return the line pieces of all cells, from the edge where each begins to the edge where it ends.

    A line enters the next cell by the edge that it leaves this one by, so pieces are joined by edges. Points are no
    safe key: two edges have the same point where a line passes within rounding of a grid point.
    """
    above = grid >= level
    corners = above[:-1, :-1] + 2 * above[:-1, 1:] + 4 * above[1:, 1:] + 8 * above[1:, :-1]
    pieces: dict[_Edge, _Edge] = {}
    for y, x in zip(*np.nonzero((corners > 0) & (corners < 15)), strict=True):
        for begin, end in _CASES[int(corners[y, x])]:
            pieces[_edge(int(x), int(y), begin)] = _edge(int(x), int(y), end)
    return pieces


def _edge(x: int, y: int, edge: int) -> _Edge:
    """Return an edge of the cell at (x, y) in a form that the cell beside it shares."""
    if edge in (0, 2):
        return x, y + (edge == 2), False
    return x + (edge == 1), y, True


def _cross(grid: npt.NDArray[np.float64], level: float, edge: _Edge) -> Point:
    """Return the point where the line crosses an edge, in grid units."""
    x, y, vertical = edge
    first, second = grid[y, x], grid[y + 1, x] if vertical else grid[y, x + 1]
    share = float((level - first) / (second - first))
    return (float(x), y + share) if vertical else (x + share, float(y))


def _join(pieces: dict[_Edge, _Edge]) -> list[list[_Edge]]:
    lines = []
    while pieces:
        begin, edge = pieces.popitem()
        line = [begin]
        while edge != begin:
            line.append(edge)
            edge = pieces.pop(edge)
        lines.append(line)
    return lines


class OpenModels:
    """Models that were opened for activation maps; the last ones stay open. Any thread may use it.

    Args:
        most: number of models that stay open.
    """

    def __init__(self, most: int = 2) -> None:
        self._most = most
        self._opened: OrderedDict[tuple[Path, str], Backend] = OrderedDict()
        self._opening = threading.Lock()

    def open(self, path: str | Path, *, backend: str = "onnxruntime") -> Backend:
        """Return a model, opened with one thread. One thread at a time opens a model.

        Args:
            path: of the model file.
            backend: name of the inference engine.

        Raises:
            ModelError, BackendError: the file cannot be used.
        """
        key = Path(path), backend
        with self._opening:
            found = self._opened.pop(key, None) or open_model(path, backend=backend, threads=1)
            self._opened[key] = found
            while len(self._opened) > self._most:
                # Not closed: another thread may be running it. It goes when nobody holds it.
                self._opened.popitem(last=False)
            return found

    def close(self) -> None:
        """Let go of all models."""
        with self._opening:
            self._opened.clear()
