"""Score the events found in recordings against the true findings: found or missed, false events, frames to open.

Definitions:

- A **finding** is a run of frames with the same true label, other than normal, and is as long as possible. The
  recordings lack the frames that nobody marked; such a gap between two frames of a run does not end the run.
- An event is **right** when at least half of its frames carry its label in the truth. Otherwise it is **false**:
  someone who opens it mostly sees something else.
- A finding is **hit** when a right event of its label holds at least one of its frames. One event may hit several
  findings of its label, if at least half of the event's frames belong to them; a reader who opens it sees them all.
  A long event that mostly shows something else is not right, so it hits nothing.
- A finding is **seen** when it is hit, or when an event of another label holds one of its frames and at least half
  of that event's frames belong to some finding. The reader then sees the finding under another name.
- A false event lies **on a finding** when at least half of its frames belong to findings, of whatever label.
  Otherwise it lies **on normal frames**.
- Two common measures stand beside these. A finding is **touched** by any event of its label that shares a frame
  with it, however long and wrong the event is. It is **matched** by an event with an intersection over union of at
  least .5, where each finding and each event counts once; the mean average precision over the labels goes with that
  (temporal mAP@.5). Both count marked frames and not seconds, because nobody knows what lies in the gaps of a thinned
  recording.
- The **share to open** is the share of all frames that one reader of all recordings opens until at least one frame
  of every finding was open. It is computed in three ways. ``pictures``: first the peak frame of each event, strongest
  event first, then the other frames by falling probability of not being normal. ``events``: the same, with all frames
  of each event. ``frames``: without events. A reader does not know which finding is the last, so the share is a lower
  bound and not a promise.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from capsule_edge.runtime.errors import InputError

from .event_matching import Span, event_scores

__all__ = [
    "COUNTS",
    "FindingOutcome",
    "FoundEvent",
    "Reading",
    "TrueFinding",
    "count_by_label",
    "finding_outcomes",
    "findings",
    "is_right",
    "score_findings",
    "share_to_open",
]

NORMAL = "normal"
Way = Literal["pictures", "events", "frames"]
_WAYS: tuple[Way, ...] = ("pictures", "events", "frames")
COUNTS = (
    "findings",
    "hit",
    "seen",
    "events",
    "right_events",
    "false_events",
    "false_on_finding",
    "false_on_normal",
)
"""The counts of ``count_by_label``."""


@dataclass(frozen=True)
class TrueFinding:
    """A run of frames to which the truth gives ``label``: rows ``first`` to ``last``, inclusive."""

    label: str
    first: int
    last: int


@dataclass(frozen=True)
class FoundEvent:
    """An event over rows ``first`` to ``last``, inclusive; ``score`` is its probability at row ``peak``."""

    label: str
    first: int
    last: int
    peak: int
    score: float


@dataclass(frozen=True)
class Reading:
    """One recording with its truth and the events that a model found in it.

    Attributes:
        recording: The name of the recording.
        labels: The true label key of each of the N frames.
        abnormal: float (N,), the probability that the frame is not normal; NaN where the model did not answer.
        events: The events found.

    Raises:
        InputError: ``labels`` and ``abnormal`` differ in length.
    """

    recording: str
    labels: Sequence[str]
    abnormal: npt.NDArray[np.float64]
    events: Sequence[FoundEvent]

    def __post_init__(self) -> None:
        if self.abnormal.shape != (len(self.labels),):
            raise InputError(
                f"{self.recording} has {len(self.labels)} labels and scores of shape {self.abnormal.shape}; "
                "each frame needs one label and one score"
            )


@dataclass(frozen=True)
class FindingOutcome:
    """The outcome of one finding: hit, seen or touched by the events of a reading (defined above)."""

    finding: TrueFinding
    hit: bool
    seen: bool
    touched: bool


def findings(labels: Sequence[str]) -> list[TrueFinding]:
    """Return the findings of a recording in order, given the true label key of each frame."""
    runs = [
        (key, [i for i, _ in group]) for key, group in groupby(enumerate(labels), key=lambda item: item[1])
    ]
    return [TrueFinding(key, rows[0], rows[-1]) for key, rows in runs if key != NORMAL]


def is_right(event: FoundEvent, labels: Sequence[str]) -> bool:
    """Return whether at least half of the event's frames carry its label in the truth."""
    held = labels[event.first : event.last + 1]
    return 2 * sum(label == event.label for label in held) >= len(held)


def finding_outcomes(reading: Reading) -> Iterator[FindingOutcome]:
    """Yield the outcome of each finding of a reading, in order."""
    right = [event for event in reading.events if is_right(event, reading.labels)]
    abnormal = [event for event in reading.events if _is_abnormal(event, reading.labels)]
    for finding in findings(reading.labels):
        hit = any(e.label == finding.label and _overlap(e, finding) for e in right)
        yield FindingOutcome(
            finding,
            hit=hit,
            seen=hit or any(_overlap(event, finding) for event in abnormal),
            touched=any(e.label == finding.label and _overlap(e, finding) for e in reading.events),
        )


def score_findings(readings: Sequence[Reading]) -> dict[str, Any]:
    """Count findings and events over all readings, in total and by label.

    Returns:
        A JSON-ready document: the totals of ``count_by_label``; ``touched``, a count of findings; and
        ``false_events_per_1000_frames`` (None without a frame); ``share_to_open`` by way (None without a finding);
        ``matched`` as ``event_scores`` returns it; ``by_label``.
    """
    rows = count_by_label(readings)
    totals = {name: sum(row[name] for row in rows.values()) for name in COUNTS}
    frames = sum(len(reading.labels) for reading in readings)
    touched = sum(outcome.touched for reading in readings for outcome in finding_outcomes(reading))
    return {
        **totals,
        "touched": touched,
        "false_events_per_1000_frames": 1000 * totals["false_events"] / frames if frames else None,
        "share_to_open": {by: share_to_open(readings, by=by) for by in _WAYS},
        "matched": event_scores(*_spans(readings)),
        "by_label": dict(sorted(rows.items())),
    }


def count_by_label(readings: Sequence[Reading], keys: Iterable[str] = ()) -> dict[str, dict[str, int]]:
    """Count the findings and events of each label.

    Args:
        readings: The recordings, each with its truth and the events found.
        keys: The labels that come first, in this order, also those without a finding or an event.

    Returns:
        For each label ``findings``, of these ``hit`` and ``seen``; and ``events``, of these ``right_events`` and
        ``false_events``, of these ``false_on_finding`` and ``false_on_normal``.
    """
    rows = {key: dict.fromkeys(COUNTS, 0) for key in keys}

    def add(label: str, counts: Mapping[str, bool]) -> None:
        row = rows.setdefault(label, dict.fromkeys(COUNTS, 0))
        for name, counted in counts.items():
            row[name] += counted

    for reading in readings:
        for outcome in finding_outcomes(reading):
            add(outcome.finding.label, {"findings": True, "hit": outcome.hit, "seen": outcome.seen})
        for event in reading.events:
            false, abnormal = not is_right(event, reading.labels), _is_abnormal(event, reading.labels)
            add(event.label, {"events": True, "right_events": not false, "false_events": false})
            add(
                event.label,
                {"false_on_finding": false and abnormal, "false_on_normal": false and not abnormal},
            )
    return rows


def share_to_open(readings: Sequence[Reading], *, by: Way) -> float | None:
    """Return the share of frames that a reader opens until one frame of every finding is open.

    Args:
        readings: All recordings, read by one reader.
        by: The order in which the reader opens frames (see the definitions above).

    Returns:
        The share, 0..1; None where the recordings have no finding.
    """
    unopened = {(at, finding) for at, reading in enumerate(readings) for finding in findings(reading.labels)}
    if not unopened:
        return None
    opened = [np.zeros(len(reading.labels), bool) for reading in readings]
    for at, first, last in _reading_order(readings, by):
        if opened[at][first : last + 1].all():
            continue
        opened[at][first : last + 1] = True
        unopened = {(i, f) for i, f in unopened if i != at or f.first > last or first > f.last}
        if not unopened:
            break
    return float(sum(int(rows.sum()) for rows in opened) / sum(len(rows) for rows in opened))


def _reading_order(readings: Sequence[Reading], by: Way) -> Iterator[tuple[int, int, int]]:
    """Yield (reading, first row, last row) in the order in which a reader opens them."""
    events = [
        (-e.score, at, *((e.first, e.last) if by == "events" else (e.peak, e.peak)))
        for at, reading in enumerate(readings)
        for e in (reading.events if by != "frames" else ())
    ]
    for _, at, first, last in sorted(events):
        yield at, first, last
    # A frame without an answer has no score and is opened last.
    scores = np.concatenate([np.nan_to_num(reading.abnormal, nan=-1.0) for reading in readings])
    places = [(at, row) for at, reading in enumerate(readings) for row in range(len(reading.labels))]
    for index in np.argsort(-scores, kind="stable").tolist():
        at, row = places[index]
        yield at, row, row


def _spans(readings: Sequence[Reading]) -> tuple[list[Span], list[Span]]:
    """Return the events and the findings as spans over rows."""
    found = [Span(r.recording, e.label, e.first, e.last + 1, e.score) for r in readings for e in r.events]
    true = [Span(r.recording, f.label, f.first, f.last + 1) for r in readings for f in findings(r.labels)]
    return found, true


def _is_abnormal(event: FoundEvent, labels: Sequence[str]) -> bool:
    """Return whether at least half of the event's frames belong to some finding."""
    held = labels[event.first : event.last + 1]
    return 2 * sum(label != NORMAL for label in held) >= len(held)


def _overlap(event: FoundEvent, finding: TrueFinding) -> bool:
    return event.first <= finding.last and finding.first <= event.last
