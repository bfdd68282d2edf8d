"""Suggestions: one place is one card, every event is in one of them, and they come by score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from study_samples import SPEC, make_study

from capsule_edge.runtime.events import EventMeasures, group_events, suggest
from capsule_edge.runtime.inference import (
    MEASURES,
    PrecisionAtScore,
    SuggestionGrouping,
    SuggestionPrecision,
    SuggestionWeights,
)
from capsule_edge.runtime.study import Event, MeasuredPrecision

pytestmark = pytest.mark.quick

# Two frames a second: frame 10 begins at 5 s.
FRAME_S = 0.5


def event(label: str, first: int, last: int, features: Sequence[float] = (0.0, 0.0)) -> EventMeasures:
    """An event over frames ``first`` to ``last``, inclusive."""
    begin_s, end_s = first * FRAME_S, (last + 1) * FRAME_S
    found = Event(1, label, "finding", first, last, begin_s, end_s, first, begin_s, 0.9, last - first + 1)
    return EventMeasures(found, 0.5, dict.fromkeys(MEASURES, 0.0), np.array(features), begin_s, end_s)


def groups(
    events: Sequence[EventMeasures], scores: Sequence[float], **rule: float
) -> list[tuple[int, tuple[int, ...], int]]:
    found = group_events(events, scores, SuggestionGrouping(**rule) if rule else None)
    return [(group.lead, group.members, group.similar) for group in found]


def test_labels_over_the_same_frames_are_one_suggestion_led_by_the_highest_score() -> None:
    events = [event("ulcer", 10, 19), event("erosion", 12, 30), event("polyp", 100, 109)]
    assert groups(events, [0.2, 0.7, 0.5]) == [(1, (0, 1), 0), (2, (2,), 0)]


def test_a_small_overlap_leaves_two_suggestions() -> None:
    # 2 of the 10 frames of the shorter event are shared, which is less than a quarter; then 3, which is more.
    assert len(groups([event("ulcer", 10, 19), event("erosion", 18, 99)], [0.2, 0.7])) == 2
    assert len(groups([event("ulcer", 10, 19), event("erosion", 17, 99)], [0.2, 0.7])) == 1
    assert len(groups([event("ulcer", 10, 19), event("erosion", 17, 99)], [0.2, 0.7], overlap=0.5)) == 2


def test_labels_next_to_each_other_are_one_suggestion() -> None:
    # From the end of frame 19 (10 s) to the start of frame 25 (12.5 s) are 2.5 s.
    for first, cards in ((25, 1), (26, 2)):
        assert len(groups([event("ulcer", 10, 19), event("erosion", first, 40)], [0.2, 0.7])) == cards


def test_an_event_joins_its_leader_and_not_the_leaders_other_events() -> None:
    # The polyp overlaps the ulcer alone, which belongs to the erosion: a chain would hide the polyp.
    events = [event("erosion", 0, 20), event("ulcer", 12, 32), event("polyp", 27, 45)]
    assert groups(events, [0.9, 0.5, 0.4]) == [(0, (0, 1), 0), (2, (2,), 0)]


def test_places_of_one_label_that_look_alike_within_minutes_are_one_suggestion() -> None:
    here, other = (1.0, -1.0), (3.0, -3.0)  # they differ by 2, root mean square
    events = [
        event("ulcer", 0, 9, here),
        event("ulcer", 100, 109, here),  # 45 s later
        event("ulcer", 200, 209, other),
        event("erosion", 300, 309, here),
        event("ulcer", 700, 709, here),  # 345 s after the first
    ]
    scores = [0.9, 0.8, 0.7, 0.6, 0.5]
    assert groups(events, scores) == [(0, (0, 1), 1), (2, (2,), 0), (3, (3,), 0), (4, (4,), 0)]
    assert groups(events, scores, distance=2.0)[0] == (0, (0, 1, 2), 2)
    assert groups(events, scores, within_s=345.0)[0] == (0, (0, 1, 4), 2)
    assert len(groups(events, scores, within_s=0.0)) == 5


def test_a_similar_place_brings_its_alternatives_along() -> None:
    events = [event("ulcer", 0, 9), event("ulcer", 50, 59), event("erosion", 50, 59, (5.0, 5.0))]
    assert groups(events, [0.9, 0.8, 0.1]) == [(0, (0, 1, 2), 1)]


def test_every_event_is_in_one_suggestion_whatever_the_events() -> None:
    generator = np.random.default_rng(11)
    for _ in range(50):
        events = [
            event(
                str(generator.choice(["a", "b", "c"])), first, first + int(generator.integers(1, 40)), (x, -x)
            )
            for first, x in zip(
                generator.integers(0, 2000, 40).tolist(), generator.normal(size=40), strict=True
            )
        ]
        scores = generator.integers(0, 20, 40) / 20  # with ties
        found = group_events(events, scores.tolist())
        assert sorted(at for group in found for at in group.members) == list(range(40))
        assert all(scores[group.lead] == max(scores[list(group.members)]) for group in found)
        assert [scores[group.lead] for group in found] == sorted(
            (scores[g.lead] for g in found), reverse=True
        )
        backwards = group_events(events[::-1], scores[::-1].tolist())
        assert [scores[g.lead] for g in found] == [scores[::-1][g.lead] for g in backwards]


def test_no_event_gives_no_suggestion() -> None:
    assert group_events([], []) == []
    study = make_study(stretches=())
    assert suggest(study.events, study.frames, study.model, scale=1.0) == []


RULE = SuggestionPrecision(
    (PrecisionAtScore(0.0, 0.1, 0.02, 0.3, 20), PrecisionAtScore(0.6, 0.8, 0.6, 0.9, 30)),
    50,
    "50 suggestions",
    SuggestionWeights(0.0, {"mean": 1.0}, {}),  # the score is the mean probability
)
STUDY = make_study(
    stretches=[(20, 40, "ulcer", 0.95), (20, 36, "blood_fresh", 0.04), (80, 100, "blood_fresh", 0.6)],
    spec=replace(
        SPEC, operating_points=dict.fromkeys(("ulcer", "blood_fresh"), SPEC.operating_points["ulcer"])
    ),
)


def test_a_suggestion_has_the_score_and_the_precision_of_the_model_file() -> None:
    first, second = suggest(STUDY.events, STUDY.frames, replace(STUDY.model, suggestions=RULE), scale=1.0)
    assert (first.id, first.label, first.events, second.id, second.label) == (
        1,
        "ulcer",
        (1,),
        2,
        "blood_fresh",
    )
    assert 0.6 <= second.score + 0.05 <= first.score
    assert first.precision == MeasuredPrecision(0.8, 0.6, 0.9, 30, "50 suggestions")
    assert second.precision.estimate in (0.1, 0.8)


def test_without_weights_the_score_is_the_mean_probability_and_its_precision_is_unknown() -> None:
    for rule in (None, replace(RULE, weights=None)):
        found = suggest(STUDY.events, STUDY.frames, replace(STUDY.model, suggestions=rule), scale=1.0)
        assert [one.precision for one in found] == [None, None]
        assert 0.9 < found[0].score < 0.95


def test_the_leading_event_comes_first_and_the_others_are_alternatives() -> None:
    low = {key: replace(point, threshold=0.3) for key, point in STUDY.model.operating_points.items()}
    spec = replace(STUDY.model, operating_points=low)
    study = make_study(stretches=[(20, 40, "ulcer", 0.45), (22, 38, "blood_fresh", 0.5)], spec=spec)
    assert [e.label for e in study.events] == ["ulcer", "blood_fresh"]
    (one,) = suggest(study.events, study.frames, spec, scale=1.0)
    assert (one.label, one.events) == ("blood_fresh", (2, 1))
    assert [other.label for other in one.alternatives] == ["ulcer"]
    assert one.alternatives[0].score < one.score
