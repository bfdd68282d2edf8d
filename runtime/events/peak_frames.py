"""Pictures of the peaks of events, kept while a recording is read, so that it is decoded once.

Which frame is a peak is known when its event closes (``event_stream``). It has the label's highest probability in the
event and lies, but for rare cases, at or above the label's threshold, so frames that do wait as decoded until it is
known: of each stretch that no event divides the highest. The peak of a closed event is packed, the others are let go.
What was not kept is decoded again at the end.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame

from ..inference import InputSpec, ModelSpec
from ..preprocessing import FieldOfView, Sighted, preprocess_planes
from ..study import Event
from .find import vote_reach_s
from .ranking import strength
from .stream import EventStream

__all__ = ["MOST", "WAITING", "Gallery", "Pictures", "Sight", "candidates", "pack", "unpack"]

# Side of an event's picture, pixels: what the report shows.
_SIDE = 288
# Pictures of events, packed some 0.08 MB each; the report has room for some 500.
MOST = 400
# Bytes of decoded pictures that may wait until it is known whether they show a peak.
WAITING = 16 * 2**20
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


def candidates(
    probabilities: npt.NDArray[np.float32], features: Map, pictures: Sequence[Sighted], spec: ModelSpec
) -> dict[int, Sight]:
    """The rows of a batch that may be a peak of some label; ``pictures`` by row are let go otherwise.

    Of frames at or above a label's threshold that follow one another, the highest of those from the first on. An event
    may begin later, as long as half a window reaches: so also the highest of those from each of the next few on.
    """
    columns, thresholds = _thresholds(spec)
    if not columns or not pictures:
        return {}
    p = probabilities[:, columns]
    hot = np.round(p.astype(np.float64), _DECIMALS) >= thresholds
    hot[~np.isfinite(probabilities).all(axis=1)] = False
    rule = spec.events
    late = int(vote_reach_s(rule.smoothing_s, rule.max_gap_s) * rule.assumed_capture_fps)
    indices = np.array([picture.index for picture in pictures])
    rows: set[int] = set()
    for place in np.flatnonzero(hot.any(axis=0)).tolist():
        held = np.flatnonzero(hot[:, place])
        for run in np.split(held, np.flatnonzero(np.diff(indices[held]) > 1) + 1):
            rows.update(int(run[at + np.argmax(p[run[at:], place])]) for at in range(min(late + 1, len(run))))
    return {row: Sight(pictures[row], features[row].copy()) for row in sorted(rows)}


def enlarge(spec: InputSpec) -> InputSpec:
    """How a frame becomes the picture of an event."""
    return replace(spec, size=max(_SIDE, spec.size))


@dataclass(frozen=True, slots=True)
class _Waiting:
    """``p`` is the highest that some label may have its peak with, ``size`` in bytes."""

    sight: Sight
    field_of_view: FieldOfView | None
    p: float
    size: int


class Gallery:
    """The peaks of the events of every label that can have them. Frames come in order."""

    def __init__(self, spec: ModelSpec) -> None:
        self._keys = spec.keys
        self._columns, self._thresholds = _thresholds(spec)
        self._large = enlarge(spec.input)
        self._waiting: dict[int, _Waiting] = {}
        self._bytes = 0
        # By label's column: the probabilities of the frames that wait for its events, by index.
        self._hopes: dict[int, dict[int, float]] = {column: {} for column in self._columns}
        # By label's column and frame: event, picture, map of that label.
        self._kept: dict[int, dict[int, tuple[Event, bytes, Map]]] = {column: {} for column in self._columns}

    @property
    def waiting_bytes(self) -> int:
        """Of the pictures of which is not known yet whether they show a peak; at most ``WAITING``."""
        return self._bytes

    def add(
        self,
        index: int,
        probabilities: npt.NDArray[np.float32],
        sight: Sight,
        field_of_view: FieldOfView | None,
    ) -> None:
        """A frame of ``candidates``."""
        values = [float(probabilities[column]) for column in self._columns]
        hot = {
            column: p
            for column, p, threshold in zip(self._columns, values, self._thresholds.tolist(), strict=True)
            if round(p, _DECIMALS) >= threshold
        }
        if not hot:  # the thresholds are not the model's own
            return
        for column, p in hot.items():
            self._hopes[column][index] = p
        self._waiting[index] = _Waiting(sight, field_of_view, max(hot.values()), _size(sight))
        self._bytes += self._waiting[index].size
        while self._bytes > WAITING:
            weakest = min(self._waiting, key=lambda index: (self._waiting[index].p, -index))
            self._drop(weakest)
            for hopes in self._hopes.values():
                hopes.pop(weakest, None)

    def keep(self, event: Event) -> None:
        """An event has closed: pack the picture of its peak, where it waits."""
        column = self._keys.index(event.label)
        waiting = self._waiting.get(event.peak_index)
        if waiting is None or not self._make_room(column, event):
            return
        packed = [rows[event.peak_index][1] for rows in self._kept.values() if event.peak_index in rows]
        if not packed:
            planes = waiting.sight.picture.planes()
            assert planes is not None  # what was classified has a picture
            packed = [pack(preprocess_planes(planes, self._large, waiting.field_of_view))]
        self._kept[column][event.peak_index] = (event, packed[0], waiting.sight.features[..., column].copy())

    def release(self, events: EventStream) -> None:
        """Let go of the pictures that can be no peak any more of the events that have not closed."""
        for column, hopes in self._hopes.items():
            if hopes:
                self._hopes[column] = events.may_be_peaks(column, hopes)
        for index in self._waiting.keys() - set().union(*self._hopes.values()):
            self._drop(index)

    def find(self, label_column: int, index: int) -> tuple[bytes, Map] | None:
        """Picture (``pack``) and map of a label's peak, where they were kept."""
        found = self._kept.get(label_column, {}).get(index)
        return None if found is None else found[1:]

    def _make_room(self, column: int, event: Event) -> bool:
        """Whether the event is among the ``MOST``, which the labels share as where events are ranked."""
        if sum(map(len, self._kept.values())) < MOST:
            return True
        counts = {other: len(rows) + (other == column) for other, rows in self._kept.items()}
        fullest = max(counts, key=counts.__getitem__)
        rivals = [kept[0] for kept in self._kept[fullest].values()]
        weakest = max([*rivals, event] if fullest == column else rivals, key=strength)
        if weakest is event:
            return False
        del self._kept[fullest][weakest.peak_index]
        return True

    def _drop(self, index: int) -> None:
        self._bytes -= self._waiting.pop(index).size


def _size(sight: Sight) -> int:
    picture = sight.picture.picture
    if isinstance(picture, VideoFrame):
        return sum(plane.buffer_size for plane in picture.planes) + sight.features.nbytes
    assert picture is not None  # what was classified has a picture
    return picture.nbytes + sight.features.nbytes


def _thresholds(spec: ModelSpec) -> tuple[list[int], npt.NDArray[np.float64]]:
    columns = [
        column for column in spec.index_of("finding") if spec.labels[column].key in spec.operating_points
    ]
    return columns, np.array(
        [round(spec.operating_points[spec.labels[column].key].threshold, _DECIMALS) for column in columns]
    )
