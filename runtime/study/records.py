"""What a run finds: the records that flow from the reader to the files, schema ``capsule-edge/study/1``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from ..inference import ModelSpec, Role

if TYPE_CHECKING:
    from ..preprocessing import FieldOfView

__all__ = ["Event", "FrameRecord", "Ledger", "Source", "Status", "Study"]

SCHEMA = "capsule-edge/study/1"

Status = Literal["classified", "duplicate", "corrupt", "missing", "skipped", "unread"]
STATUSES: tuple[Status, ...] = ("classified", "duplicate", "corrupt", "missing", "skipped", "unread")


@dataclass(frozen=True, slots=True)
class FrameRecord:
    """One container frame, in presentation order.

    ``pts`` counts ticks of the stream's time base; ``time_s`` is container time from the first presented
    frame. Both are None for a missing frame. ``probabilities`` is float32 (labels,), None unless classified
    or duplicate.
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
    """Every container frame, counted once: ``container`` is the sum of the six statuses.

    ``truncated`` is None where the container does not say how long it is.
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
        """True when no frame is corrupt, missing or unread and the file is not cut."""
        return not (self.corrupt or self.missing or self.unread or self.truncated)


@dataclass(frozen=True)
class Event:
    """A finding over a half-open stretch ``[start_s, end_s)`` of container time; indices are inclusive."""

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
class Source:
    """The recording as it was found. ``time_base`` is "num/den" seconds a tick."""

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


@dataclass(frozen=True)
class Study:
    """The whole answer for one recording.

    ``thumbnails`` maps an event id to a uint8 RGB HxWx3 picture of its peak and ``activations`` to a
    float32 (h, w) map in 0..1 over that picture; ``colours`` is the mean colour of the frames in equal
    stretches of container time, RGB 0..255 of shape (bins, 3), NaN for a stretch without a frame. None of
    them is part of the JSON. ``landmarks`` are those set by hand, seconds of container time by name
    (``landmarks.LANDMARKS``).
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
    colours: npt.NDArray[np.float64] | None = None
    landmarks: Mapping[str, float] = field(default_factory=dict)
