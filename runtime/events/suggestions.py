"""Group the events of a recording into suggestions, score them, and put them into the order in which to look at them.

Each suggestion is led by the event with the highest score. It takes in

- events of other labels that share frames with the leading event or lie next to it: its alternatives;
- events of its label that look alike and lie within minutes, with their own alternatives: similar places.

Every event belongs to one suggestion.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..inference import ModelSpec, SuggestionGrouping
from ..study import Alternative, Event, FrameRecord, MeasuredPrecision, Suggestion
from .event_measures import EventMeasures, feature_distance, measure_events, score_event

__all__ = ["EventGroup", "group_events", "suggest"]

Indices = npt.NDArray[np.int64]

# Two events of different labels are adjacent if they lie at most this far apart, seconds of capture time: a capsule
# takes 2 to 6 frames a second, so a few frames lie between them.
_ADJACENT_S = 2.5


@dataclass(frozen=True)
class EventGroup:
    """Events that become one suggestion; the numbers are positions in a list of events.

    Attributes:
        lead: the event with the highest score.
        members: all events of the group in ascending order, with ``lead``.
        similar: number of further places that look alike.
    """

    lead: int
    members: tuple[int, ...]
    similar: int


def suggest(
    events: Sequence[Event], frames: Sequence[FrameRecord], spec: ModelSpec, *, scale: float
) -> list[Suggestion]:
    """Return the suggestions of a recording by falling score; equal scores by start, then label.

    Args:
        events: all events of the recording, numbered.
        frames: all its container frames, in presentation order.
        spec: description of the model, whose ``suggestions`` hold the weights, the grouping and the precision.
        scale: seconds of capture time in one second of container time (``capture_scale``).

    Example:
        suggest(study.events, study.frames, study.model, scale=1.0)[0].score
    """
    rule = spec.suggestions
    measured = measure_events(events, frames, spec, scale=scale)
    scores = [score_event(one, rule.weights if rule else None) for one in measured]
    groups = group_events(measured, scores, rule.grouping if rule else None)
    return [_suggestion(number, group, events, scores, spec) for number, group in enumerate(groups, start=1)]


def _suggestion(
    number: int, group: EventGroup, events: Sequence[Event], scores: Sequence[float], spec: ModelSpec
) -> Suggestion:
    lead = events[group.lead]
    best: dict[str, float] = {}
    for at in group.members:
        best[events[at].label] = max(scores[at], best.get(events[at].label, 0.0))
    others = sorted((-score, label) for label, score in best.items() if label != lead.label)
    return Suggestion(
        id=number,
        label=lead.label,
        events=(lead.id, *(events[at].id for at in group.members if at != group.lead)),
        score=scores[group.lead],
        precision=_precision(scores[group.lead], spec),
        alternatives=tuple(Alternative(label, -minus) for minus, label in others),
        similar=group.similar,
    )


def _precision(score: float, spec: ModelSpec) -> MeasuredPrecision | None:
    """Return the measured precision of suggestions with such a score; None if it was not measured with the weights."""
    rule = spec.suggestions
    if rule is None or rule.weights is None or (found := rule.at(score)) is None:
        return None
    return MeasuredPrecision(found.estimate, found.low, found.high, found.n, rule.measured_on)


def group_events(
    measured: Sequence[EventMeasures], scores: Sequence[float], grouping: SuggestionGrouping | None = None
) -> list[EventGroup]:
    """Return the groups of events by falling score of their leading events; equal scores by start, then label.

    Args:
        measured: the events of one recording.
        scores: of the same events.
        grouping: the rules; None for the defaults of ``SuggestionGrouping``.
    """
    if not measured:
        return []
    rule = grouping or SuggestionGrouping()
    table = _Table.of(measured)
    events = [one.event for one in measured]
    order = sorted(range(len(events)), key=lambda at: (-scores[at], events[at].start_index, events[at].label))
    places = _group(order, lambda at: table.same_place(at, rule))
    leads = np.array([place[0] for place in places])
    alike = _group(range(len(places)), lambda at: table.alike(leads, at, rule))
    return [
        EventGroup(
            int(leads[group[0]]), tuple(sorted(at for place in group for at in places[place])), len(group) - 1
        )
        for group in alike
    ]


def _group(order: Sequence[int], joins: Callable[[int], npt.NDArray[np.bool_]]) -> list[list[int]]:
    """Let each item that is still free, in this order, take all free items that it joins; it comes first."""
    free = np.ones(len(order), np.bool_)
    groups = []
    for lead in order:
        if free[lead]:
            taken = free & joins(lead)
            taken[lead] = False
            free[taken] = free[lead] = False
            groups.append([lead, *np.flatnonzero(taken).tolist()])
    return groups


@dataclass(frozen=True)
class _Table:
    """The events as columns: frame indices (last inclusive), seconds of capture time, labels, mean ``features``."""

    first: Indices
    last: Indices
    begin_s: npt.NDArray[np.float64]
    end_s: npt.NDArray[np.float64]
    labels: npt.NDArray[np.str_]
    features: npt.NDArray[np.float64]

    @classmethod
    def of(cls, measured: Sequence[EventMeasures]) -> _Table:
        """Return the columns of the events."""
        return cls(
            np.array([one.event.start_index for one in measured], np.int64),
            np.array([one.event.end_index for one in measured], np.int64),
            np.array([one.begin_s for one in measured]),
            np.array([one.end_s for one in measured]),
            np.array([one.event.label for one in measured]),
            np.array([one.features for one in measured]),
        )

    def same_place(self, at: int, rule: SuggestionGrouping) -> npt.NDArray[np.bool_]:
        """Return which events are of another label than event ``at`` and overlap it or lie next to it."""
        shared = np.minimum(self.last, self.last[at]) - np.maximum(self.first, self.first[at]) + 1
        frames = self.last - self.first + 1
        overlap = shared >= rule.overlap * np.minimum(frames, frames[at])
        adjacent = (shared <= 0) & (self._gap_s(slice(None), at) <= _ADJACENT_S)
        return np.asarray((self.labels != self.labels[at]) & (overlap | adjacent), np.bool_)

    def alike(self, leads: Indices, at: int, rule: SuggestionGrouping) -> npt.NDArray[np.bool_]:
        """Return which leading events are of the label of lead number ``at``, near it, and alike in ``features``."""
        lead = int(leads[at])
        near = (self._gap_s(leads, lead) <= rule.within_s) & (rule.within_s > 0)
        distance = feature_distance(self.features[lead], self.features[leads])
        return np.asarray(
            (self.labels[leads] == self.labels[lead]) & near & (distance <= rule.distance), np.bool_
        )

    def _gap_s(self, others: Indices | slice, at: int) -> npt.NDArray[np.float64]:
        """Return the capture time between events and event ``at``, seconds; below 0 where they overlap."""
        begins = np.maximum(self.begin_s[others], self.begin_s[at])
        return np.asarray(begins - np.minimum(self.end_s[others], self.end_s[at]), np.float64)
