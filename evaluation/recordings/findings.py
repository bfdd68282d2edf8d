"""What a reader gets from the events of a recording: which findings they hit, how many are false, what is left to open.

- A **finding** is a maximal run of frames that the truth gives one label other than normal. Recordings are thinned:
  frames between two of a run that nobody marked do not end it.
- An event is **right** when at least half of its frames carry its label in the truth, else it is **false**: whoever
  opens it sees something else for most of it.
- A finding is **hit** when a right event of its label holds at least one of its frames. One event may hit several
  findings of its label if they lie so close that most of it is still they: its reader sees them all. An event
  that spans half the recording hits nothing.
- A finding is **seen** when it is hit, or when an event of another label holds one of its frames and at least half of
  that event's frames are of some finding: the reader is shown it under another name.
- Two common measures stand beside: **touched**, by any event of its label that shares a frame, however long and
  wrong; and **matched**, intersection over union of at least .5, each finding and event taken once, with the mean
  average precision over the labels (temporal mAP@.5). Both count marked frames and not seconds: what lies in the
  holes of a thinned recording nobody knows.
- The **share to open** is what one reader of all the recordings opens until at least one frame of every finding was
  before them. ``pictures``: the picture of each event, which is its peak, strongest event first, then the other frames
  by falling probability of not being normal. ``events``: the same with all frames of each event. ``frames``: without
  events. Nobody knows on reading that the last finding has come, so this is the least that would have been
  enough, not a promise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from capsule_edge.runtime.errors import InputError

from .event_matching import Span, event_scores

__all__ = ["Finding", "FoundEvent", "Reading", "findings", "is_right", "score_findings", "share_to_open"]

NORMAL = "normal"
Way = Literal["pictures", "events", "frames"]
_WAYS: tuple[Way, ...] = ("pictures", "events", "frames")


@dataclass(frozen=True)
class Finding:
    """A run of frames of one label, rows ``first`` to ``last`` inclusive."""

    label: str
    first: int
    last: int


@dataclass(frozen=True)
class FoundEvent:
    """An event over rows ``first`` to ``last`` inclusive; ``score`` is its probability at row ``peak``."""

    label: str
    first: int
    last: int
    peak: int
    score: float


@dataclass(frozen=True)
class Reading:
    """One recording as it was read.

    ``labels`` (N) are the keys of the truth, ``abnormal`` (N,) the probability of not being normal, NaN where
    the frame has no answer. Raises ``InputError`` where they differ in length.
    """

    recording: str
    labels: Sequence[str]
    abnormal: npt.NDArray[np.float64]
    events: Sequence[FoundEvent]

    def __post_init__(self) -> None:
        if self.abnormal.shape != (len(self.labels),):
            raise InputError(
                f"{self.recording} has {len(self.labels)} labels and scores {self.abnormal.shape}, "
                "one of each a frame is needed"
            )


def findings(labels: Sequence[str]) -> list[Finding]:
    """The findings of a recording, in order."""
    runs = [
        (key, [i for i, _ in group]) for key, group in groupby(enumerate(labels), key=lambda item: item[1])
    ]
    return [Finding(key, rows[0], rows[-1]) for key, rows in runs if key != NORMAL]


def is_right(event: FoundEvent, labels: Sequence[str]) -> bool:
    """Whether at least half of the event's frames carry its label."""
    held = labels[event.first : event.last + 1]
    return 2 * sum(label == event.label for label in held) >= len(held)


def score_findings(readings: Sequence[Reading]) -> dict[str, Any]:
    """Findings hit and seen, false events, and the shares to open, over all recordings; by label too.

    Shares are None without a finding, rates None without a frame.
    """
    rows: dict[str, dict[str, int]] = {}
    total = hit = seen = touched = false = 0
    for reading in readings:
        right = [event for event in reading.events if is_right(event, reading.labels)]
        shown = [event for event in reading.events if _is_abnormal(event, reading.labels)]
        for finding in findings(reading.labels):
            row = _row(rows, finding.label)
            hits = any(e.label == finding.label and _holds(e, finding) for e in right)
            total, hit = total + 1, hit + hits
            touched += any(e.label == finding.label and _holds(e, finding) for e in reading.events)
            seen += hits or any(_holds(event, finding) for event in shown)
            row["findings"] += 1
            row["hit"] += hits
        for event in reading.events:
            row = _row(rows, event.label)
            row["events"] += 1
            row["false_events"] += event not in right
        false += len(reading.events) - len(right)
    frames = sum(len(reading.labels) for reading in readings)
    return {
        "findings": total,
        "hit": hit,
        "seen": seen,
        "touched": touched,
        "events": sum(len(reading.events) for reading in readings),
        "false_events": false,
        "false_events_per_1000_frames": 1000 * false / frames if frames else None,
        "share_to_open": {by: share_to_open(readings, by=by) for by in _WAYS},
        "matched": event_scores(*_spans(readings)),
        "by_label": dict(sorted(rows.items())),
    }


def share_to_open(readings: Sequence[Reading], *, by: Way) -> float | None:
    """Frames opened until one of every finding was seen, as a share of all; None without a finding."""
    waiting = {(at, finding) for at, reading in enumerate(readings) for finding in findings(reading.labels)}
    if not waiting:
        return None
    opened = [np.zeros(len(reading.labels), bool) for reading in readings]

    def open_rows(at: int, first: int, last: int) -> None:
        opened[at][first : last + 1] = True
        waiting.difference_update(
            {(at, f) for where, f in waiting if where == at and f.first <= last and first <= f.last}
        )

    def share() -> float:
        return float(sum(int(rows.sum()) for rows in opened) / sum(len(rows) for rows in opened))

    events = [
        (-e.score, at, *((e.first, e.last) if by == "events" else (e.peak, e.peak)))
        for at, reading in enumerate(readings)
        for e in (reading.events if by != "frames" else ())
    ]
    for _, at, first, last in sorted(events):
        open_rows(at, first, last)
        if not waiting:
            return share()
    # A frame without an answer is opened last: no score asks for it.
    scores = np.concatenate([np.nan_to_num(reading.abnormal, nan=-1.0) for reading in readings])
    places = [(at, row) for at, reading in enumerate(readings) for row in range(len(reading.labels))]
    for index in np.argsort(-scores, kind="stable").tolist():
        at, row = places[index]
        if not opened[at][row]:
            open_rows(at, row, row)
            if not waiting:
                break
    return share()


def _spans(readings: Sequence[Reading]) -> tuple[list[Span], list[Span]]:
    """Events and findings as spans over rows."""
    found = [Span(r.recording, e.label, e.first, e.last + 1, e.score) for r in readings for e in r.events]
    true = [Span(r.recording, f.label, f.first, f.last + 1) for r in readings for f in findings(r.labels)]
    return found, true


def _row(rows: dict[str, dict[str, int]], label: str) -> dict[str, int]:
    return rows.setdefault(label, {"findings": 0, "hit": 0, "events": 0, "false_events": 0})


def _is_abnormal(event: FoundEvent, labels: Sequence[str]) -> bool:
    held = labels[event.first : event.last + 1]
    return 2 * sum(label != NORMAL for label in held) >= len(held)


def _holds(event: FoundEvent, finding: Finding) -> bool:
    return event.first <= finding.last and finding.first <= event.last
