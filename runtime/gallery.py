"""Pictures of what may become an event's peak, kept while a recording is read, so that it is decoded once.

Which frame is a peak is known at the end. It has the label's highest probability in its event and lies at or above
the label's threshold (a mean does not exceed its largest value), so of each run of frames at or above it the highest
is kept. Where an event begins inside such a run another frame can be the peak; those few are decoded again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from .preprocess import FieldOfView, preprocess_planes
from .spec import InputSpec, ModelSpec
from .stages import Sighted

__all__ = ["KEPT", "MOST", "Gallery", "Pictures", "Sight", "candidates", "pack", "unpack"]

# Side of an event's picture, pixels: what the report shows.
_SIDE = 288
# Pictures of events, packed some 0.08 MB each; the report has room for some 500.
MOST = 400
# Of those that may become one, held while a recording is read; what is not among them is decoded again.
KEPT = 200
_DECIMALS = 6

Picture = npt.NDArray[np.uint8]
Map = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Sight:
    """A frame that may be a peak: the picture as decoded and float32 (h, w, labels) as the model gave them."""

    picture: Sighted
    features: Map


class Pictures(Mapping[int, Picture]):
    """Pictures by number, uint8 RGB HxWx3, packed without loss and unpacked when asked for."""

    def __init__(self, packed: Mapping[int, bytes]) -> None:
        self._packed = dict(packed)

    def __getitem__(self, number: int) -> Picture:
        return unpack(self._packed[number])

    def __iter__(self) -> Iterator[int]:
        return iter(self._packed)

    def __len__(self) -> int:
        return len(self._packed)


def pack(picture: Picture) -> bytes:
    """A picture as PNG, quickly."""
    bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".png", bgr, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()


def unpack(data: bytes) -> Picture:
    bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert bgr is not None  # what ``pack`` made
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)


@dataclass(slots=True)
class _Best:
    index: int
    last: int
    p: float
    sight: Sight
    field_of_view: FieldOfView | None


def candidates(
    probabilities: npt.NDArray[np.float32], features: Map, pictures: Sequence[Sighted], spec: ModelSpec
) -> dict[int, Sight]:
    """The rows of a batch that may be a peak of some label; ``pictures`` by row are let go otherwise."""
    columns, thresholds = _thresholds(spec)
    if not columns or not pictures:
        return {}
    hot = (np.round(probabilities[:, columns].astype(np.float64), _DECIMALS) >= thresholds).any(axis=1)
    return {row: Sight(pictures[row], features[row].copy()) for row in np.flatnonzero(hot).tolist()}


def enlarge(spec: InputSpec) -> InputSpec:
    """How a frame becomes the picture of an event."""
    return replace(spec, size=max(_SIDE, spec.size))


class Gallery:
    """The best frame of each run, of every label that can have events. Frames come in order."""

    def __init__(self, spec: ModelSpec) -> None:
        self._columns, self._thresholds = _thresholds(spec)
        self._large = enlarge(spec.input)
        self._open: dict[int, _Best] = {}
        # By label's column and frame: probability, picture, map of that label.
        self._kept: dict[int, dict[int, tuple[float, bytes, Map]]] = {column: {} for column in self._columns}

    def add(
        self,
        index: int,
        probabilities: npt.NDArray[np.float32],
        sight: Sight,
        field_of_view: FieldOfView | None,
    ) -> None:
        """A frame of ``candidates``."""
        for column, threshold in zip(self._columns, self._thresholds.tolist(), strict=True):
            p = float(probabilities[column])
            if round(p, _DECIMALS) < threshold:
                continue
            best = self._open.get(column)
            if best is not None and best.last != index - 1:
                self._close(column)
                best = None
            if best is None:
                self._open[column] = _Best(index, index, p, sight, field_of_view)
            else:
                best.last = index
                if p > best.p:
                    best.index, best.p, best.sight = index, p, sight

    def find(self, label_column: int, index: int) -> tuple[bytes, Map] | None:
        """Picture (``pack``) and map of a label's peak, where they were kept."""
        for column in list(self._open):
            self._close(column)
        found = self._kept.get(label_column, {}).get(index)
        return None if found is None else found[1:]

    def _close(self, column: int) -> None:
        best = self._open.pop(column)
        kept = self._kept[column]
        if best.index not in kept and sum(map(len, self._kept.values())) >= KEPT:
            # Labels share the places, as they do where events are ranked.
            counts = {other: len(rows) + (other == column) for other, rows in self._kept.items()}
            fullest = self._kept[max(counts, key=counts.__getitem__)]
            weakest = min(fullest, key=lambda index: fullest[index][0], default=best.index)
            if fullest is kept and (weakest == best.index or best.p <= kept[weakest][0]):
                return
            del fullest[weakest]
        planes = best.sight.picture.planes()
        assert planes is not None  # what was classified has a picture
        picture = preprocess_planes(planes, self._large, best.field_of_view)
        kept[best.index] = (best.p, pack(picture), best.sight.features[..., column].copy())


def _thresholds(spec: ModelSpec) -> tuple[list[int], npt.NDArray[np.float64]]:
    columns = [
        column for column in spec.index_of("finding") if spec.labels[column].key in spec.operating_points
    ]
    return columns, np.array(
        [round(spec.operating_points[spec.labels[column].key].threshold, _DECIMALS) for column in columns]
    )
