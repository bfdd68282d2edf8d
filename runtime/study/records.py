"""Define the records of a study: frames, ledger, events and source (schema ``capsule-edge/study/2``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from ..inference import ModelSpec, Role

if TYPE_CHECKING:
    from ..preprocessing import FieldOfView
    from ..recording import DamageDetection, RecordingWarning, TimesSource

__all__ = [
    "UNFAMILIAR",
    "Alternative",
    "Event",
    "FrameRecord",
    "Ledger",
    "MeasuredPrecision",
    "Source",
    "Status",
    "StripPicture",
    "Study",
    "Suggestion",
]

SCHEMA = "capsule-edge/study/2"
# The detail of a frame that was set aside.
UNFAMILIAR = "unfamiliar"

Status = Literal["classified", "duplicate", "corrupt", "missing", "skipped", "unread"]
STATUSES: tuple[Status, ...] = ("classified", "duplicate", "corrupt", "missing", "skipped", "unread")


@dataclass(frozen=True, slots=True)
class FrameRecord:
    """One container frame.

    Attributes:
        index: index in presentation order, from 0.
        status: ``classified``, ``duplicate``, ``corrupt``, ``missing``, ``skipped`` or ``unread``.
        pts: presentation time in ticks of the stream's time base; None for a missing frame.
        time_s: container time in seconds from the first presented frame; None for a missing frame.
        duplicate_of: index of the earlier frame whose answer a duplicate takes, else None.
        detail: a detail of the status, such as ``damaged``; ``unfamiliar`` for a frame that was set aside, with its
            answer, because it resembles nothing in the training data or repeats a frozen picture; else empty.
        probabilities: float32 (labels,), 0..1; None unless the frame is classified or a duplicate.
    """

    index: int
    status: Status
    pts: int | None = None
    time_s: float | None = None
    duplicate_of: int | None = None
    detail: str = ""
    probabilities: npt.NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Ledger:
    """The number of container frames by status; each frame is counted once.

    Attributes:
        container: number of container frames, the sum of the six statuses.
        container_source: where that number is from: the file's header, its packets, or unknown.
        truncated: whether the file ends before its container's end; None if the container does not give its length.
        classified: frames that the model answered.
        duplicate: near-duplicates of an earlier frame, whose answer they take.
        corrupt: damaged frames, and frames that depend on them.
        missing: frames that the container announces and does not hold.
        skipped: frames that were not to be read.
        unread: frames that were not reached, because the run was cancelled.
        edited_out: samples that the edit list discards; not part of ``container``.
    """

    container: int
    container_source: Literal["header", "packets", "unknown"]
    truncated: bool | None
    classified: int = 0
    duplicate: int = 0
    corrupt: int = 0
    missing: int = 0
    skipped: int = 0
    unread: int = 0
    edited_out: int = 0

    @property
    def whole(self) -> bool:
        """True if no frame is corrupt, missing or unread and the file is not truncated."""
        return not (self.corrupt or self.missing or self.unread or self.truncated)


@dataclass(frozen=True)
class Event:
    """A label over an interval of a recording.

    Attributes:
        id: number of the event in its study, from 1.
        label: key of the label.
        role: role of the label.
        start_index: first frame.
        end_index: last frame, inclusive.
        start_s: container time of the start, seconds.
        end_s: container time of the end, seconds, exclusive.
        peak_index: frame with the highest probability.
        peak_s: container time of that frame, seconds.
        peak_p: its probability before smoothing, 0..1.
        frames: number of classified and duplicate frames from the first to the last, without those set aside.
    """

    id: int
    label: str
    role: Role
    start_index: int
    end_index: int
    start_s: float
    end_s: float
    peak_index: int
    peak_s: float
    peak_p: float
    frames: int


@dataclass(frozen=True)
class MeasuredPrecision:
    """The measured share of suggestions with a similar score that were right.

    Attributes:
        estimate: the share, 0..1.
        low: lower end of its 95 % interval, 0..1.
        high: upper end of its 95 % interval, 0..1.
        n: number of suggestions that were counted.
        measured_on: text that names the recordings.
    """

    estimate: float
    low: float
    high: float
    n: int
    measured_on: str


@dataclass(frozen=True)
class Alternative:
    """Another label that the frames of a suggestion may show.

    Attributes:
        label: key of the label.
        score: the highest score among the suggestion's events of this label.
    """

    label: str
    score: float


@dataclass(frozen=True)
class Suggestion:
    """A group of events that show one place, or places that look alike; the report shows it as one card.

    Attributes:
        id: number of the suggestion in its study, from 1, in the order in which to look at them.
        label: key of the label of the leading event.
        events: ids of its events; the leading event, which has the highest score, comes first.
        score: estimated probability that the leading event is right, 0..1. With a model that has no weights for it,
            the mean probability of its label.
        precision: measured precision of suggestions with such a score; None if it was not measured.
        alternatives: the other labels of its events, by falling score.
        similar: number of further places that look alike and lie within minutes; their events are in ``events``.
    """

    id: int
    label: str
    events: tuple[int, ...]
    score: float
    precision: MeasuredPrecision | None = None
    alternatives: tuple[Alternative, ...] = ()
    similar: int = 0


@dataclass(frozen=True)
class Source:
    """The recording.

    Attributes:
        name: name of the file, without its folder; ``sha256`` if it was read with ``anonymous``.
        sha256: SHA-256 of the file, 64 hexadecimal digits.
        codec: name of the video codec.
        width: width of a displayed frame, pixels.
        height: height of a displayed frame, pixels.
        time_base: seconds per tick, as "numerator/denominator".
        start_pts: presentation time of the first frame, ticks.
        duration_s: length in seconds of container time; None if not known.
        time_kind: ``capture`` if the file keeps the timing of the capsule (a median frame distance of at least 0.1 s),
            ``playback`` if it plays faster.
        capture_fps: frames per second at which the capsule recorded; None if not known.
        field_of_view: field of view of the recording; None if it was not found or not needed.
        times: ``container`` if order and times are the container's, ``inferred`` if they were worked out from the
            decoder's output.
        damage_detection: how much of the damage in a frame the codec's decoder reports: ``full``, ``partial``,
            ``none``.
        stream_sha256: SHA-256 of the bit stream (an MP4 or a transport stream) that lies inside the file (DICOM); None
            for other files.
    """

    name: str
    sha256: str
    codec: str
    width: int
    height: int
    time_base: str
    start_pts: int | None
    duration_s: float | None
    time_kind: Literal["capture", "playback"]
    capture_fps: float | None
    field_of_view: FieldOfView | None
    times: TimesSource = "container"
    damage_detection: DamageDetection = "full"
    stream_sha256: str | None = None


@dataclass(frozen=True, slots=True)
class StripPicture:
    """A small picture of a frame.

    Attributes:
        index: of the frame.
        side: width and height of the picture, pixels.
        jpeg: the picture as a JPEG file.
    """

    index: int
    side: int
    jpeg: bytes = field(repr=False)


@dataclass(frozen=True)
class Study:
    """The results of reading one recording.

    Attributes:
        source: the recording.
        model: the description of the model.
        model_sha256: SHA-256 of the model file, 64 hexadecimal digits.
        backend: name of the inference engine.
        options: the options that can change a result, JSON values by name.
        ledger: the number of frames by status.
        frames: all container frames, in presentation order.
        events: the events, ordered by start, then by label.
        thumbnails: the peak frame of each event by event id, uint8 RGB (H, W, 3). Not in ``study.json``.
        activations: the activation map of the peak frame by event id, float32 (h, w), 0..1. Not in ``study.json``.
        strips: small pictures of each event by event id, in the order of the recording; events that have none are left
            out. Not in ``study.json``.
        colours: mean colour of the frames in equal intervals of container time, float64 (bins, 3), RGB 0..255, NaN for
            an interval without frames. Not in ``study.json``.
        landmarks: the landmarks set by hand, seconds of container time by name (a name in ``LANDMARKS`` of ``events``).
        warnings: what was read in spite of an odd field, was inferred, or lies in the file and was not read; and
            whether the recording was used to train the model or to fit it.
        suggestions: the events in groups, in the order in which to look at them; None if they were not grouped.
    """

    source: Source
    model: ModelSpec
    model_sha256: str
    backend: str
    options: dict[str, Any]
    ledger: Ledger
    frames: Sequence[FrameRecord]
    events: Sequence[Event]
    thumbnails: Mapping[int, npt.NDArray[np.uint8]] = field(default_factory=dict)
    activations: dict[int, npt.NDArray[np.float32]] = field(default_factory=dict)
    strips: Mapping[int, Sequence[StripPicture]] = field(default_factory=dict)
    colours: npt.NDArray[np.float64] | None = None
    landmarks: Mapping[str, float] = field(default_factory=dict)
    warnings: Sequence[RecordingWarning] = ()
    suggestions: Sequence[Suggestion] | None = None
