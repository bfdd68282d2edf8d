"""Keep the peak frames of events while a recording is read, so that they need not be decoded again.

The peak is the frame with the label's highest probability in the event; it almost always reaches the label's
threshold. Until an event closes (``stream``), frames that may still be its peak (candidates) are kept decoded. Between
two places where an event can begin or end, only the highest is kept. When the event closes, its peak is packed as PNG
and the others are dropped. A peak that was not kept is decoded again at the end.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame

from ..inference import InputSpec, ModelSpec
from ..preprocessing import FieldOfView, preprocess_frame
from ..recording import Frame
from ..study import Event
from .ranking import strength
from .rules import vote_reach_s
from .stream import EventStream

__all__ = [
    "MOST",
    "WAITING",
    "Candidate",
    "PeakFrames",
    "Thumbnails",
    "activation_map",
    "enlarge",
    "find_candidates",
    "pack",
    "unpack",
]

# Side of an event's picture, pixels: what the report shows.
_SIDE = 288
# Pictures of events, packed some 0.08 MB each; the report has room for some 500.
MOST = 400
# Bytes of decoded pictures that may wait until it is known whether they show a peak.
WAITING = 16 * 2**20
_DECIMALS = 6

Pixels = npt.NDArray[np.uint8]
Map = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A frame that may become the peak of an event, with its image, and the model's ``features`` (h, w, labels)."""

    frame: Frame
    features: Map

    @property
    def nbytes(self) -> int:
        """Exact size of the image and the features in bytes."""
        image = self.frame.image
        if isinstance(image, VideoFrame):
            return sum(plane.buffer_size for plane in image.planes) + self.features.nbytes
        assert image is not None  # every candidate has an image
        return image.nbytes + self.features.nbytes


class Thumbnails(Mapping[int, Pixels]):
    """Images by event id, uint8 RGB (height, width, 3), packed without loss and unpacked when asked for."""

    def __init__(self, packed: Mapping[int, bytes]) -> None:
        self._packed = dict(packed)

    def __getitem__(self, event: int) -> Pixels:
        return unpack(self._packed[event])

    def __iter__(self) -> Iterator[int]:
        return iter(self._packed)

    def __len__(self) -> int:
        return len(self._packed)


def pack(image: Pixels) -> bytes:
    """Return an image, uint8 RGB, as PNG with fast compression."""
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".png", bgr, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()


def unpack(data: bytes) -> Pixels:
    """Return the image that ``pack`` packed, uint8 RGB."""
    bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert bgr is not None  # ``pack`` made it
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)


def activation_map(feature: Map) -> Map:
    """Return a label's class-activation map, float32 (h, w), scaled to 0..1.

    Positive evidence is kept, as a share of the strongest. The map of a model without ``features`` is empty. After Zhou
    et al., Learning Deep Features for Discriminative Localization, CVPR 2016.

    Args:
        feature: one label's column of the model's ``features``, float32 (h, w).
    """
    positive = np.maximum(np.nan_to_num(feature), 0)
    return np.asarray(positive / (positive.max(initial=0) or 1), np.float32)


def find_candidates(
    probabilities: npt.NDArray[np.float32], features: Map, frames: Sequence[Frame], spec: ModelSpec
) -> dict[int, Candidate]:
    """Return the rows of a batch that may be the peak of some label's event.

    In each run of frames at or above a label's threshold, the highest frame is a candidate. Smoothing can make the
    event begin up to half a window later. So for each start within that time, the highest frame from there to the end
    of the run is a candidate too.

    Args:
        probabilities: float32 (rows, labels).
        features: float32 (rows, h, w, labels).
        frames: the frames of the rows, with their images.
        spec: the model description whose thresholds decide which frames may be peaks.
    """
    columns, thresholds = _thresholds(spec)
    if not columns or not frames:
        return {}
    p = probabilities[:, columns]
    above = np.round(p.astype(np.float64), _DECIMALS) >= thresholds
    above[~np.isfinite(probabilities).all(axis=1)] = False
    rule = spec.events
    late = int(vote_reach_s(rule.smoothing_s, rule.max_gap_s) * rule.assumed_capture_fps)
    indices = np.array([frame.index for frame in frames])
    rows: set[int] = set()
    for place in np.flatnonzero(above.any(axis=0)).tolist():
        held = np.flatnonzero(above[:, place])
        for run in np.split(held, np.flatnonzero(np.diff(indices[held]) > 1) + 1):
            rows.update(int(run[at + np.argmax(p[run[at:], place])]) for at in range(min(late + 1, len(run))))
    return {row: Candidate(frames[row], features[row].copy()) for row in sorted(rows)}


def enlarge(spec: InputSpec) -> InputSpec:
    """Return the preprocessing of an event's image: that of the model, at the size that the report shows."""
    return replace(spec, size=max(_SIDE, spec.size))


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A candidate that waits; ``p`` is the highest probability with which it may be a peak."""

    candidate: Candidate
    field_of_view: FieldOfView | None
    p: float


class PeakFrames:
    """The peak frames of the events of one recording. Frames come in order."""

    def __init__(self, spec: ModelSpec) -> None:
        self._keys = spec.keys
        self._columns, self._thresholds = _thresholds(spec)
        self._large = enlarge(spec.input)
        self._waiting: dict[int, _Waiting] = {}
        self._bytes = 0
        # By label column: the probabilities of the candidates for its next events, by frame index.
        self._candidates: dict[int, dict[int, float]] = {column: {} for column in self._columns}
        # By label column and frame index: the event, its packed image, and its map of that label.
        self._kept: dict[int, dict[int, tuple[Event, bytes, Map]]] = {column: {} for column in self._columns}

    @property
    def waiting_bytes(self) -> int:
        """Size in bytes of the candidates that wait, at most ``WAITING``."""
        return self._bytes

    def add(
        self,
        index: int,
        probabilities: npt.NDArray[np.float32],
        candidate: Candidate,
        field_of_view: FieldOfView | None,
    ) -> None:
        """Let a frame of ``find_candidates`` wait. The weakest are dropped where they exceed ``WAITING`` bytes.

        Args:
            index: of the frame.
            probabilities: of the frame, float32 (labels,).
        """
        values = [float(probabilities[column]) for column in self._columns]
        above = {
            column: p
            for column, p, threshold in zip(self._columns, values, self._thresholds.tolist(), strict=True)
            if round(p, _DECIMALS) >= threshold
        }
        if not above:  # the thresholds are not the model's own
            return
        for column, p in above.items():
            self._candidates[column][index] = p
        self._waiting[index] = _Waiting(candidate, field_of_view, max(above.values()))
        self._bytes += candidate.nbytes
        while self._bytes > WAITING:
            weakest = min(self._waiting, key=lambda index: (self._waiting[index].p, -index))
            self._drop(weakest)
            for candidates in self._candidates.values():
                candidates.pop(weakest, None)

    def keep(self, event: Event) -> None:
        """Pack the peak frame of an event that has closed, if it waits."""
        column = self._keys.index(event.label)
        waiting = self._waiting.get(event.peak_index)
        if waiting is None or not self._make_room(column, event):
            return
        packed = [rows[event.peak_index][1] for rows in self._kept.values() if event.peak_index in rows]
        if not packed:
            frame = waiting.candidate.frame
            packed = [pack(preprocess_frame(frame, self._large, waiting.field_of_view))]
        features = waiting.candidate.features[..., column].copy()
        self._kept[column][event.peak_index] = (event, packed[0], features)

    def release(self, events: EventStream) -> None:
        """Drop the candidates that can no longer be the peak of an event that has not closed."""
        for column, candidates in self._candidates.items():
            if candidates:
                self._candidates[column] = events.may_be_peaks(column, candidates)
        for index in self._waiting.keys() - set().union(*self._candidates.values()):
            self._drop(index)

    def find(self, column: int, index: int) -> tuple[bytes, Map] | None:
        """Return the packed image and the features of a label's peak frame; None where they were not kept.

        Args:
            column: of the label.
            index: of the frame.
        """
        found = self._kept.get(column, {}).get(index)
        return None if found is None else found[1:]

    def _make_room(self, column: int, event: Event) -> bool:
        """Return whether the event is among the ``MOST`` kept, and drop a weaker one for it."""
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
        self._bytes -= self._waiting.pop(index).candidate.nbytes


def _thresholds(spec: ModelSpec) -> tuple[list[int], npt.NDArray[np.float64]]:
    columns = [
        column for column in spec.index_of("finding") if spec.labels[column].key in spec.operating_points
    ]
    return columns, np.array(
        [round(spec.operating_points[spec.labels[column].key].threshold, _DECIMALS) for column in columns]
    )
