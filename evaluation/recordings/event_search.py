"""The search behind ``event_fit``: all thresholds together, for each set of event parameters of a grid.

For one set of parameters the labels do not touch each other, so each label and threshold is worth a number of hit
findings and a number of false events, and choosing one threshold a label under a budget of false events is a knapsack,
solved exactly. What remains is a grid of a few hundred sets.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from capsule_edge.runtime.errors import InputError
from capsule_edge.runtime.events import find_runs, smooth
from capsule_edge.runtime.inference import EventParameters, ModelSpec

from .findings import FoundEvent, Reading, findings, is_right, score_findings
from .recording_scores import RecordingAnswers

__all__ = ["BUDGET", "GRID", "EventFit", "fit_events", "read_with"]

BUDGET = 5.0  # false events in 1,000 frames

# Seconds of capture time; in each the first value is what is tried to leave out.
GRID: Mapping[str, tuple[float, ...]] = {
    "smoothing_s": (1.0, 2.0, 4.0, 8.0, 16.0),
    "max_gap_s": (2.5, 5.0, 10.0, 20.0),
    "min_frames": (1, 2, 3, 5),
    "release": (0.3, 0.5, 0.7, 0.9),
    "merge_s": (0.0, 30.0),
}
# Even steps, closer where probabilities of rare findings lie.
THRESHOLDS = (
    0.05,
    0.1,
    0.15,
    0.2,
    0.25,
    0.3,
    0.35,
    0.4,
    0.45,
    0.5,
    0.55,
    0.6,
    0.65,
    0.7,
    0.75,
    0.8,
    0.85,
    0.9,
    0.95,
)


@dataclass(frozen=True)
class EventFit:
    """Event parameters and a threshold for each finding with an operating point."""

    events: EventParameters
    thresholds: Mapping[str, float]

    @classmethod
    def of(cls, spec: ModelSpec) -> EventFit:
        """What the model file has."""
        return cls(spec.events, {key: spec.operating_points[key].threshold for key in _keys(spec)})


@dataclass(frozen=True)
class _Choice:
    """One threshold of one label, and what it is worth."""

    threshold: float
    hits: int
    false: int
    raised: int  # steps above the model's, for a label whose worth the recordings cannot show


def fit_events(
    spec: ModelSpec,
    recordings: Sequence[RecordingAnswers],
    *,
    budget: float = BUDGET,
    frame_by_frame: bool = False,
) -> EventFit:
    """The parameters of the grid that hit the most findings with at most ``budget`` false events in 1,000 frames.

    ``frame_by_frame`` fits thresholds alone: a frame at or above is marked, and neighbouring marked frames are one
    event. Raises ``InputError`` where the recordings have no finding.
    """
    true = sum(len(findings(answers.labels.tolist())) for answers in recordings)
    if not true:
        raise InputError(f"the {len(recordings)} recordings have no finding, events cannot be fitted on them")
    allowed = int(budget * sum(len(answers.labels) for answers in recordings) / 1000)
    candidates: list[tuple[tuple[int, ...], EventFit]] = []
    rules = [_frame_rule(spec, recordings)] if frame_by_frame else list(_rules(spec))
    for rule in rules:
        tables = [_choices(spec, key, recordings, rule) for key in _keys(spec)]
        worth, thresholds = _choose(tables, allowed)
        fit = EventFit(rule, dict(zip(_keys(spec), thresholds, strict=True)))
        candidates.append((worth, fit))
    best = max(worth for worth, _ in candidates)
    equals = [fit for worth, fit in candidates if worth == best]
    return max(
        equals, key=lambda fit: (_average_precision(spec, recordings, fit), -_eccentricity(fit.events))
    )


def read_with(spec: ModelSpec, answers: RecordingAnswers, fit: EventFit) -> Reading:
    """The recording as it would be read with these parameters."""
    rows, columns = answers.answered, {key: spec.keys.index(key) for key in fit.thresholds}
    events = [
        _found(answers, key, columns[key], first, last)
        for key, threshold in fit.thresholds.items()
        for first, last in _events(answers, columns[key], threshold, fit.events)
    ]
    normal = list(spec.index_of("normal"))
    abnormal = np.full(len(answers.labels), np.nan)
    abnormal[rows] = 1 - answers.probabilities[rows][:, normal].sum(axis=1)
    return Reading(
        answers.recording, answers.labels.tolist(), abnormal, sorted(events, key=lambda e: (e.first, e.label))
    )


def _keys(spec: ModelSpec) -> list[str]:
    return [spec.keys[i] for i in spec.index_of("finding") if spec.keys[i] in spec.operating_points]


def _rules(spec: ModelSpec) -> Iterator[EventParameters]:
    for values in product(*GRID.values()):
        chosen: dict[str, Any] = dict(zip(GRID, values, strict=True))
        yield replace(spec.events, **chosen, provisional=False)


def _frame_rule(spec: ModelSpec, recordings: Sequence[RecordingAnswers]) -> EventParameters:
    # Less than a frame to either side, and no bridge over a frame that is not marked.
    steps = [np.diff(answers.capture_s[answers.answered]) for answers in recordings]
    step_s = min((float(np.median(step)) for step in steps if len(step)), default=1.0)
    return replace(
        spec.events, smoothing_s=step_s / 2, max_gap_s=1.5 * step_s, min_frames=1, release=1.0, merge_s=0.0
    )


def _events(
    answers: RecordingAnswers,
    column: int,
    threshold: float,
    rule: EventParameters,
    smoothed: npt.NDArray[np.float64] | None = None,
) -> list[tuple[int, int]]:
    """Rows, inclusive, of the events of one label."""
    rows = answers.answered
    values, capture_s = answers.probabilities[rows], answers.capture_s[rows]
    if smoothed is None:
        smoothed = smooth(values[:, column], capture_s, window_s=rule.smoothing_s, max_gap_s=rule.max_gap_s)
    runs = find_runs(smoothed, values, capture_s, threshold=threshold, rule=rule)
    return [(int(rows[first]), int(rows[last])) for first, last in runs]


def _found(answers: RecordingAnswers, key: str, column: int, first: int, last: int) -> FoundEvent:
    values = answers.probabilities[first : last + 1, column]
    at = int(np.nanargmax(values))
    return FoundEvent(key, first, last, first + at, float(values[at]))


def _choices(
    spec: ModelSpec, key: str, recordings: Sequence[RecordingAnswers], rule: EventParameters
) -> list[_Choice]:
    """What each threshold of a label is worth. Of a run of thresholds worth the same, its middle stands for all."""
    column, start = spec.keys.index(key), spec.operating_points[key].threshold
    labels = [answers.labels.tolist() for answers in recordings]
    true = [[f for f in findings(those) if f.label == key] for those in labels]
    known = any(true)
    # A label that the recordings do not show can only be raised: nothing here speaks for lowering it.
    steps = THRESHOLDS if known else (start, *(t for t in (*THRESHOLDS, 0.99) if t > start))
    smoothed = [
        smooth(
            answers.probabilities[answers.answered, column],
            answers.capture_s[answers.answered],
            window_s=rule.smoothing_s,
            max_gap_s=rule.max_gap_s,
        )
        for answers in recordings
    ]
    worth: list[tuple[int, int]] = []
    for threshold in steps:
        hits = false = 0
        for at, answers in enumerate(recordings):
            found = [
                FoundEvent(key, first, last, first, 0.0)
                for first, last in _events(answers, column, threshold, rule, smoothed[at])
            ]
            right = [event for event in found if is_right(event, labels[at])]
            false += len(found) - len(right)
            hits += sum(any(e.first <= f.last and f.first <= e.last for e in right) for f in true[at])
        worth.append((hits, false))
    choices, first = [], 0
    for at in range(len(steps)):
        if at + 1 == len(steps) or worth[at + 1] != worth[at]:
            middle = (first + at) // 2 if known else first
            choices.append(_Choice(steps[middle], *worth[at], raised=0 if known else middle))
            first = at + 1
    return choices


def _choose(tables: Sequence[Sequence[_Choice]], allowed: int) -> tuple[tuple[int, int, int], list[float]]:
    """The thresholds of the best choice of one entry a table, and what it is worth: hits, raised steps (negative),
    false events (negative).

    Where no choice keeps to ``allowed`` false events, the fewest are allowed.
    """
    # Best so far by the number of false events spent: (hits, -raised), thresholds.
    states: dict[int, tuple[tuple[int, int], list[float]]] = {0: ((0, 0), [])}
    limit = max(allowed, sum(min(choice.false for choice in table) for table in tables))
    for table in tables:
        after: dict[int, tuple[tuple[int, int], list[float]]] = {}
        for spent, ((hits, minus), thresholds) in states.items():
            for choice in table:
                false = spent + choice.false
                worth = (hits + choice.hits, minus - choice.raised)
                if false <= limit and (false not in after or worth > after[false][0]):
                    after[false] = (worth, [*thresholds, choice.threshold])
        states = after
    false, (worth, thresholds) = max(states.items(), key=lambda item: (item[1][0], -item[0]))
    return (*worth, -false), thresholds


def _average_precision(spec: ModelSpec, recordings: Sequence[RecordingAnswers], fit: EventFit) -> float:
    scores = score_findings([read_with(spec, answers, fit) for answers in recordings])
    return float(scores["matched"]["mean_average_precision"] or 0.0)


def _eccentricity(rule: EventParameters) -> float:
    """How far the parameters lie from the middle of the grid, in steps: the middle has room on both sides."""
    return sum(
        abs(values.index(getattr(rule, name)) - (len(values) - 1) / 2)
        for name, values in GRID.items()
        if getattr(rule, name) in values
    )
