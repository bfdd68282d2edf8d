"""Search for the event parameters that ``event_fit`` reports.

The search covers a grid of event parameters (some hundred sets) and of thresholds. The events at each point of the grid
are found once and counted by recording (``event_table``). A fit on some of the recordings is then a choice from sums of
these counts: for one set of event parameters the labels are independent of each other, and one threshold for each label
under a budget of false events is a knapsack problem (``threshold_choice``).

With few findings, the point of the grid that hits the most is often a lucky one. The search therefore gives a point the
mean of the hits around it: along each axis of the grid a point counts twice and each of its two neighbours once, and
along the thresholds this is done ``_ROUNDS`` times. A hit that a small change of any parameter loses then counts less.
The cost of a point is its number of false events or the mean around it, whichever is larger: the budget holds at the
point, and a point next to many false events is not cheap. Among points of equal worth the search prefers fewer events,
of which a false one counts ten times a right one, then thresholds in the middle of a range without an effect, then the
middle of the grid.
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

from .event_table import EventTable, tabulate_events
from .findings import FoundEvent, Reading
from .recording_scores import RecordingAnswers
from .threshold_choice import choose_thresholds

__all__ = ["BUDGET", "GRID", "EventFit", "EventSearch", "fit_events", "read_with"]

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int32]

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
# .05, .1 ... .95, each the float nearest to its decimal, and two for models that are often sure.
THRESHOLDS = (*(step / 20 for step in range(1, 20)), 0.97, 0.99)
# See the module's docstring.
_ROUNDS = 2
# What ranks points of equal hits, in hits: the cost of one step above the model's threshold for a label without a
# finding, of a false event and of a right one, and the worth of one step between a threshold and the end of its range.
_RAISED, _FALSE, _RIGHT, _MIDDLE = 1e-3, 1e-4, 1e-5, 1e-7


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
class EventSearch:
    """The counts at all points of the grid, from which fits on any of the recordings are chosen.

    Attributes:
        table: The counts.
        shape: The number of values of each event parameter in the grid.
    """

    table: EventTable
    shape: tuple[int, ...]

    @classmethod
    def of(
        cls, spec: ModelSpec, recordings: Sequence[RecordingAnswers], *, frame_by_frame: bool = False
    ) -> EventSearch:
        """Find and count the events at all points of the grid.

        Args:
            spec: The model, with the thresholds from which the search starts.
            recordings: The answers and the truth, at least one.
            frame_by_frame: Fit thresholds only. A frame at or above its threshold is marked, and neighbouring marked
                frames make one event.
        """
        rules = [_frame_rule(spec, recordings)] if frame_by_frame else list(_rules(spec))
        shape = (1,) if frame_by_frame else tuple(map(len, GRID.values()))
        return cls(tabulate_events(spec, recordings, rules, THRESHOLDS, _keys(spec)), shape)

    def fits(self, budgets: Sequence[float], used: Sequence[int] | None = None) -> list[EventFit]:
        """Find the parameters that hit the most findings within each budget of false events.

        A label without a finding in the recordings keeps the model's threshold. It is raised only to keep the budget.

        Args:
            budgets: The largest numbers of false events in 1,000 frames.
            used: The positions of the recordings to fit on; None: all of them.

        Raises:
            InputError: The recordings have no finding.
        """
        table, at = self.table, slice(None) if used is None else list(used)
        has_finding = table.findings[:, at].sum(axis=1) > 0
        if not has_finding.any():
            count = table.findings[:, at].shape[1]
            raise InputError(f"the {count} recordings have no finding, events cannot be fitted on them")
        frames = int(table.frames[at].sum())
        hits, right, false = (
            counts[..., at].sum(axis=-1) for counts in (table.hits, table.right, table.false)
        )
        # A label without a finding is not searched, so its false events are counted as they are.
        around = np.rint(self._mean_around(false)).astype(np.intp)
        cost = np.where(has_finding[:, None], np.maximum(false, around), false)
        choices = choose_thresholds(
            self._worth(hits, false, has_finding) - _FALSE * cost - _RIGHT * right,
            cost,
            [int(budget * frames / 1000) for budget in budgets],
            np.array([_eccentricity(rule) for rule in table.rules]),
        )
        return [
            EventFit(
                table.rules[choice.rule],
                {
                    key: float(table.thresholds[label, step])
                    for label, (key, step) in enumerate(zip(table.keys, choice.steps, strict=True))
                },
            )
            for choice in choices
        ]

    @property
    def not_judged(self) -> list[str]:
        """The labels without a finding in the recordings, whose thresholds nothing supports."""
        return [key for key, row in zip(self.table.keys, self.table.findings, strict=True) if not row.any()]

    def _mean_around(self, counts: Counts) -> Floats:
        """Return the mean of the counts around each point of the grid, (K, L, T).

        The model's own threshold, the last, has no neighbours.
        """
        mean = counts[..., :-1].reshape(*self.shape, *counts.shape[1:-1], -1).astype(np.float64)
        for axis in [*range(len(self.shape)), *[-1] * _ROUNDS]:
            mean = _mean_of_neighbours(mean, axis)
        return np.concatenate([mean.reshape(*counts.shape[:-1], -1), counts[..., -1:]], axis=-1)

    def _worth(self, hits: Counts, false: Counts, has_finding: npt.NDArray[np.bool_]) -> Floats:
        """Return the worth of each threshold for ``choose_thresholds``, float (K, L, T)."""
        worth = self._mean_around(hits)
        worth[..., :-1] += _MIDDLE * _distance_to_change(hits[..., :-1], false[..., :-1])
        worth[..., -1] = -np.inf
        for label in np.flatnonzero(~has_finding):
            # Nothing in the recordings supports lowering the threshold.
            above = self.table.thresholds[label, :-1] > self.table.thresholds[label, -1]
            worth[:, label, :-1] = np.where(above, -_RAISED * np.cumsum(above), -np.inf)
            worth[:, label, -1] = 0.0
        return worth


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
        recordings: The answers and the truth, at least one.
        budget: The largest number of false events in 1,000 frames. If no point of the grid keeps to it, the fit has
            the smallest possible number.
        frame_by_frame: Fit thresholds only, as ``EventSearch.of`` says.

    Raises:
        InputError: The recordings have no finding.
    """
    return EventSearch.of(spec, recordings, frame_by_frame=frame_by_frame).fits([budget])[0]


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
) -> list[tuple[int, int]]:
    """Return the first and last row (inclusive) of each event of one label."""
    rows = answers.answered
    values, capture_s = answers.probabilities[rows], answers.capture_s[rows]
    smoothed = smooth(values[:, column], capture_s, window_s=rule.smoothing_s, max_gap_s=rule.max_gap_s)
    runs = find_runs(smoothed, values, capture_s, threshold=threshold, rule=rule)
    return [(int(rows[first]), int(rows[last])) for first, last in runs]


def _found(answers: RecordingAnswers, key: str, column: int, first: int, last: int) -> FoundEvent:
    values = answers.probabilities[first : last + 1, column]
    at = int(np.nanargmax(values))
    return FoundEvent(key, first, last, first + at, float(values[at]))


def _mean_of_neighbours(values: Floats, axis: int) -> Floats:
    """Return the mean of each value, counted twice, and its two neighbours; the edge is its own neighbour."""
    last = values.shape[axis] - 1
    before, after = np.r_[0, :last], np.r_[1 : last + 1, last]
    return np.asarray((np.take(values, before, axis) + 2 * values + np.take(values, after, axis)) / 4)


def _distance_to_change(hits: Counts, false: Counts) -> npt.NDArray[np.intp]:
    """Return how many steps each threshold can move to either side without another count, intp (K, L, T)."""
    steps = np.arange(hits.shape[-1])
    changes = np.ones(hits.shape, np.bool_)
    changes[..., 1:] = (np.diff(hits) != 0) | (np.diff(false) != 0)
    since = steps - np.maximum.accumulate(np.where(changes, steps, 0), axis=-1)
    ends = np.ones(hits.shape, np.bool_)
    ends[..., :-1] = changes[..., 1:]
    left = np.where(ends, steps, steps[-1])[..., ::-1]
    until = np.minimum.accumulate(left, axis=-1)[..., ::-1] - steps
    return np.minimum(since, until)


def _eccentricity(rule: EventParameters) -> float:
    """Return the distance from the middle of the grid in steps; the middle has room on both sides."""
    return sum(
        abs(values.index(getattr(rule, name)) - (len(values) - 1) / 2)
        for name, values in GRID.items()
        if getattr(rule, name) in values
    )
