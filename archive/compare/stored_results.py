"""Read from a result what a comparison needs: the model, the suggestions, and the frames that they show."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from capsule_edge.runtime.errors import InputError
from capsule_edge.runtime.inference import SEEN_IN_FITTING, SEEN_IN_TRAINING

from ..reading import ResultStore

__all__ = [
    "ModelIdentity",
    "PlacedEvent",
    "PlacedSuggestion",
    "Span",
    "StoredResult",
    "join_spans",
    "read_stored",
]

Span = tuple[int, int]

_FAULTS = (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError)


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """The model that made a result, as ``study.json`` names it."""

    name: str
    version: str
    precision: str
    sha256: str


@dataclass(frozen=True, slots=True)
class PlacedEvent:
    """An event: its label, its first and last frame (inclusive), and its peak.

    Attributes:
        label: key of the label.
        start_index, end_index: first and last frame.
        start_s, end_s: container time of the start and the end, seconds; the end is exclusive.
        peak_index: frame with the highest probability.
        peak_s: container time of that frame, seconds.
        peak_p: its probability, 0..1.
    """

    label: str
    start_index: int
    end_index: int
    start_s: float
    end_s: float
    peak_index: int
    peak_s: float
    peak_p: float


@dataclass(frozen=True, slots=True)
class PlacedSuggestion:
    """A suggestion and the frames that it shows.

    Attributes:
        rank: its place in the order in which to look at the suggestions, from 1.
        label: key of the label of its leading event.
        score: 0..1.
        events: its events, the leading one first.
        alternatives: keys of the other labels of its events.
        spans: the frames of its events, as half-open ranges that are ascending and apart.
    """

    rank: int
    label: str
    score: float
    events: tuple[PlacedEvent, ...]
    alternatives: tuple[str, ...]
    spans: tuple[Span, ...]

    @property
    def lead(self) -> PlacedEvent:
        """The leading event."""
        return self.events[0]

    @property
    def frames(self) -> int:
        """Number of frames that the suggestion shows."""
        return sum(end - start for start, end in self.spans)


@dataclass(frozen=True)
class StoredResult:
    """The result of one model for one recording.

    Attributes:
        key: name of the result.
        recording_sha256: SHA-256 of the recording.
        model: the model.
        backend: inference engine.
        version: of capsule-edge.
        options: the options of the reading that can change a result, as JSON.
        frames: number of container frames.
        field_of_view: ``left``, ``top``, ``width`` and ``height`` in pixels; None without one.
        thresholds: the model's threshold by label; None for a label that makes no event.
        suggestions: by rank.
        seen: True if the result warns that the model was trained or fitted on this recording.
    """

    key: str
    recording_sha256: str
    model: ModelIdentity
    backend: str
    version: str
    options: str
    frames: int
    field_of_view: dict[str, int] | None
    thresholds: Mapping[str, float | None]
    suggestions: tuple[PlacedSuggestion, ...]
    seen: bool


def read_stored(store: ResultStore, key: str) -> StoredResult:
    """Return a result.

    Args:
        store: the results of an archive.
        key: of the result.

    Raises:
        InputError: the result is gone or damaged.
    """
    document = store.document(key)
    if document is None:
        folder = store.folder(key)
        lost = "is damaged: study.json cannot be read" if (folder / "study.json").exists() else "is gone"
        raise InputError(f"the result {folder} {lost}", hint="read the recording again with the same model")
    try:
        return _parse(key, document)
    except _FAULTS as error:
        raise InputError(
            f"the result {store.folder(key)} is damaged: {type(error).__name__}: {error}",
            hint="remove it and read the recording again with the same model",
        ) from error


def join_spans(spans: Iterable[Span]) -> tuple[Span, ...]:
    """Return the frames of half-open ranges as ranges that are ascending and apart."""
    joined: list[Span] = []
    for start, end in sorted(spans):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end))
        else:
            joined.append((start, end))
    return tuple(joined)


def _parse(key: str, document: dict[str, Any]) -> StoredResult:
    source, model, tool = document["source"], document["model"], document["tool"]
    events = {int(event["id"]): _event(event) for event in document["events"]}
    codes = {warning["code"] for warning in document.get("warnings") or ()}
    view = source["field_of_view"]
    return StoredResult(
        key=key,
        recording_sha256=str(source["sha256"]),
        model=ModelIdentity(*(str(model[name]) for name in ("name", "version", "precision", "sha256"))),
        backend=str(model["backend"]),
        version=str(tool["version"]),
        options=json.dumps(tool["options"], sort_keys=True),
        frames=int(document["ledger"]["container"]),
        field_of_view=None if view is None else {str(side): int(value) for side, value in view.items()},
        thresholds=dict(document["rules"]["thresholds"]),
        suggestions=tuple(_suggestion(one, events) for one in document["suggestions"] or ()),
        seen=bool(codes & {SEEN_IN_TRAINING, SEEN_IN_FITTING}),
    )


def _event(event: Mapping[str, Any]) -> PlacedEvent:
    placed = PlacedEvent(
        label=str(event["label"]),
        start_index=int(event["start_index"]),
        end_index=int(event["end_index"]),
        start_s=float(event["start_s"]),
        end_s=float(event["end_s"]),
        peak_index=int(event["peak_index"]),
        peak_s=float(event["peak_s"]),
        peak_p=float(event["peak_p"]),
    )
    if not 0 <= placed.start_index <= placed.peak_index <= placed.end_index:
        raise ValueError(f"event {event['id']} has its peak outside of its frames")
    return placed


def _suggestion(one: Mapping[str, Any], events: Mapping[int, PlacedEvent]) -> PlacedSuggestion:
    held = tuple(events[int(number)] for number in one["events"])
    if not held:
        raise ValueError(f"suggestion {one['id']} has no event")
    return PlacedSuggestion(
        rank=int(one["id"]),
        label=str(one["label"]),
        score=float(one["score"]),
        events=held,
        alternatives=tuple(str(other["label"]) for other in one["alternatives"]),
        spans=join_spans((event.start_index, event.end_index + 1) for event in held),
    )
