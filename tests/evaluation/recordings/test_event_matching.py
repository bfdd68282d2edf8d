"""Match events and compute their scores, against cases worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from capsule_edge.evaluation.recordings import Span, event_agreement
from capsule_edge.evaluation.recordings.event_matching import (
    event_scores,
    labelled_events,
    match,
    reading_curve,
)
from capsule_edge.runtime.errors import InputError

pytestmark = pytest.mark.quick


def span(start: float, end: float, score: float = 1.0, label: str = "polyp", recording: str = "r") -> Span:
    return Span(recording, label, start, end, score)


def test_runs_of_labels_become_half_open_events() -> None:
    labels = ["normal", "polyp", "polyp", "ulcer", "normal", "polyp"]
    found = labelled_events(labels, [0.0, 0.5, 1.0, 1.5, 2.0, 2.5], "r")
    assert [(s.label, s.start_s, s.end_s) for s in found] == [
        ("polyp", 0.5, 1.5),
        ("ulcer", 1.5, 2.0),
        ("polyp", 2.5, 3.0),
    ]
    assert labelled_events([], [], "r") == []


def test_labels_and_times_of_different_length_or_falling_times_are_refused() -> None:
    with pytest.raises(InputError, match="2 labels and 1 times"):
        labelled_events(["a", "a"], [0.0], "r")
    with pytest.raises(InputError, match="fall at row 2"):
        labelled_events(["a", "a", "a"], [0.0, 1.0, 0.5], "r")


def test_a_true_event_matches_once_with_the_highest_score() -> None:
    true = [span(0, 10)]
    assert match([span(0, 10, 0.4), span(0, 9, 0.9)], true) == [None, 0]


def test_an_event_matches_the_free_true_event_of_the_largest_overlap() -> None:
    true = [span(0, 10), span(4, 14)]
    # 2..12 overlaps both by 8 of 12: the first wins the tie and leaves the second.
    assert match([span(2, 12, 0.9), span(4, 14, 0.8)], true) == [0, 1]


def test_an_event_matches_from_an_overlap_of_one_half() -> None:
    assert match([span(0, 5)], [span(0, 10)]) == [0]
    assert match([span(0, 4.9)], [span(0, 10)]) == [None]


@pytest.mark.parametrize("other", [span(0, 10, label="ulcer"), span(0, 10, recording="s"), span(10, 20)])
def test_events_of_another_label_recording_or_time_do_not_match(other: Span) -> None:
    assert match([other], [span(0, 10)]) == [None]


def test_scores_of_two_labels_by_hand() -> None:
    true = [span(0, 10), span(20, 30), span(0, 10, label="ulcer")]
    found = [span(0, 10, 0.9), span(50, 60, 0.8), span(20, 30, 0.7), span(5, 6, 0.9, label="worms")]
    scores = event_scores(found, true)
    assert (scores["precision"], scores["recall"], scores["hits"]) == (2 / 4, 2 / 3, 2)
    assert scores["f1"] == pytest.approx(4 / 7)
    # Hits at ranks 1 and 3: precision 1 and 2/3.
    assert scores["per_label"]["polyp"]["average_precision"] == pytest.approx((1 + 2 / 3) / 2)
    assert scores["per_label"]["ulcer"]["average_precision"] == 0
    assert scores["per_label"]["worms"]["average_precision"] is None
    assert scores["mean_average_precision"] == pytest.approx((1 + 2 / 3) / 4)


def test_figures_without_true_or_found_events_are_null() -> None:
    scores = event_scores([], [])
    assert [scores[n] for n in ("precision", "recall", "f1", "mean_average_precision")] == [None] * 4
    assert event_scores([], [span(0, 1)])["recall"] == 0
    assert event_agreement([], [])["agreement"] is None


def test_agreement_is_symmetric() -> None:
    a, b = [span(0, 10), span(20, 30)], [span(1, 10)]
    assert event_agreement(a, b)["agreement"] == event_agreement(b, a)["agreement"] == pytest.approx(2 / 3)


def test_the_reading_curve_by_hand() -> None:
    truth = np.array([True, False, True, False, False, False, False, False, False, False])
    scores = np.array([0.9, 0.8, 0.7, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1])
    curve = reading_curve(scores, truth, (0.1, 0.2, 0.3, 1.0))
    assert [row["sensitivity"] for row in curve] == [0.5, 0.5, 1.0, 1.0]
    assert reading_curve(scores, np.zeros(10, bool))[0]["sensitivity"] is None
    with pytest.raises(InputError):
        reading_curve(scores[:0], truth[:0])
