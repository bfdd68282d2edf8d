"""Search for the event parameters that ``event_fit`` reports.

The search tries each set of event parameters of a grid (some hundred sets). For one set, the labels are independent of
each other: each threshold of a label gives a number of hit findings and a number of false events. Choosing one
threshold for each label under a budget of false events is then a knapsack problem, which is solved exactly.
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

from .findings import FoundEvent, Reading, TrueFinding, findings, is_right, score_findings
from .recording_scores import RecordingAnswers

__all__ = ["BUDGET", "GRID", "EventFit", "fit_events", "read_with"]

BUDGET = 5.0
"""The default for the largest number of false events in 1,000 frames."""

# Times are seconds of capture time. The first value of each parameter tests whether the parameter can be left out.
GRID: Mapping[str, tuple[float, ...]] = {
    "smoothing_s": (1.0, 2.0, 4.0, 8.0, 16.0),
    "max_gap_s": (2.5, 5.0, 10.0, 20.0),
    "min_frames": (1, 2, 3, 5),
    "release": (0.3, 0.5, 0.7, 0.9),
    "merge_s": (0.0, 30.0),
}
# .05, .1 ... .95, each the float nearest to its decimal.
THRESHOLDS = tuple(step / 20 for step in range(1, 20))


@dataclass(frozen=True)
class EventFit:
    """Event parameters, and a threshold for each finding that has an operating point."""

    events: EventParameters
    thresholds: Mapping[str, float]

    @classmethod
    def of(cls, spec: ModelSpec) -> EventFit:
        """Return the event parameters and thresholds of a model file."""
        return cls(spec.events, {key: spec.operating_points[key].threshold for key in _keys(spec)})


@dataclass(frozen=True)
class _Choice:
    """One threshold of one label, with its hit findings and false events on the recordings.

    ``raised`` counts the steps above the model's threshold, for a label without a finding in the recordings.
    """

    threshold: float
    hits: int
    false: int
    raised: int


def fit_events(
    spec: ModelSpec,
    recordings: Sequence[RecordingAnswers],
    *,
    budget: float = BUDGET,
    frame_by_frame: bool = False,
) -> EventFit:
    """Find the parameters of the grid that hit the most findings within a budget of false events.

    Args:
        spec: The model, with the thresholds from which the search starts.
        recordings: The answers and the truth.
        budget: The largest number of false events in 1,000 frames.
        frame_by_frame: Fit thresholds only. A frame at or above its threshold is marked, and neighbouring marked
            frames make one event.

    Raises:
        InputError: The recordings have no finding.
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
    """Return the reading of a recording with these event parameters and thresholds."""
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
    """Return the findings that have an operating point."""
    return [spec.keys[i] for i in spec.index_of("finding") if spec.keys[i] in spec.operating_points]


def _rules(spec: ModelSpec) -> Iterator[EventParameters]:
    """Yield the event parameters at each point of the grid."""
    for values in product(*GRID.values()):
        chosen: dict[str, Any] = dict(zip(GRID, values, strict=True))
        yield replace(spec.events, **chosen, provisional=False)


def _frame_rule(spec: ModelSpec, recordings: Sequence[RecordingAnswers]) -> EventParameters:
    # Smooth over less than a frame to either side, and bridge no frame that is not marked.
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
    """Return the first and last row (inclusive) of each event of one label."""
    rows = answers.answered
    values, capture_s = answers.probabilities[rows], answers.capture_s[rows]
    if smoothed is None:
        smoothed = _smoothed(answers, column, rule)
    runs = find_runs(smoothed, values, capture_s, threshold=threshold, rule=rule)
    return [(int(rows[first]), int(rows[last])) for first, last in runs]


def _found(answers: RecordingAnswers, key: str, column: int, first: int, last: int) -> FoundEvent:
    values = answers.probabilities[first : last + 1, column]
    at = int(np.nanargmax(values))
    return FoundEvent(key, first, last, first + at, float(values[at]))


def _choices(
    spec: ModelSpec, key: str, recordings: Sequence[RecordingAnswers], rule: EventParameters
) -> list[_Choice]:
    """Score the thresholds of a label. The middle of a run of thresholds with equal scores stands for the run."""
    column, start = spec.keys.index(key), spec.operating_points[key].threshold
    labels = [answers.labels.tolist() for answers in recordings]
    true = [[finding for finding in findings(those) if finding.label == key] for those in labels]
    has_finding = any(true)
    # A label without a finding can only be raised: nothing in the recordings supports lowering it.
    steps = THRESHOLDS if has_finding else (start, *(t for t in (*THRESHOLDS, 0.99) if t > start))
    smoothed = [_smoothed(answers, column, rule) for answers in recordings]
    scores: list[tuple[int, int]] = []
    for threshold in steps:
        each = [
            _hits_and_false(
                labels[at], key, true[at], _events(answers, column, threshold, rule, smoothed[at])
            )
            for at, answers in enumerate(recordings)
        ]
        scores.append((sum(hits for hits, _ in each), sum(false for _, false in each)))
    choices, first = [], 0
    for at in range(len(steps)):
        if at + 1 == len(steps) or scores[at + 1] != scores[at]:
            middle = (first + at) // 2 if has_finding else first
            choices.append(_Choice(steps[middle], *scores[at], raised=0 if has_finding else middle))
            first = at + 1
    return choices


def _smoothed(answers: RecordingAnswers, column: int, rule: EventParameters) -> npt.NDArray[np.float64]:
    rows = answers.answered
    return smooth(
        answers.probabilities[rows, column],
        answers.capture_s[rows],
        window_s=rule.smoothing_s,
        max_gap_s=rule.max_gap_s,
    )


def _hits_and_false(
    labels: Sequence[str], key: str, true: Sequence[TrueFinding], events: Sequence[tuple[int, int]]
) -> tuple[int, int]:
    """Count the findings ``true`` of a label that the events hit, and the false ones among the events."""
    right = [
        (first, last) for first, last in events if is_right(FoundEvent(key, first, last, first, 0.0), labels)
    ]
    hits = sum(any(first <= f.last and f.first <= last for first, last in right) for f in true)
    return hits, len(events) - len(right)


def _choose(tables: Sequence[Sequence[_Choice]], allowed: int) -> tuple[tuple[int, int, int], list[float]]:
    """Choose one entry of each table so that the sum is best.

    Args:
        tables: The choices of each label.
        allowed: The largest number of false events. If no combination keeps to it, the smallest possible number.

    Returns:
        The worth (hits, -raised, -false), of which the largest is best, and the chosen threshold of each label.
    """
    # For each number of false events, the best combination so far: (hits, -raised) and its thresholds.
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
    """Return the distance from the middle of the grid in steps; the middle has room on both sides."""
    return sum(
        abs(values.index(getattr(rule, name)) - (len(values) - 1) / 2)
        for name, values in GRID.items()
        if getattr(rule, name) in values
    )
