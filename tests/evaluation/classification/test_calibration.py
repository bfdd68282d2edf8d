"""Temperature, calibration error and thresholds, against cases with a known answer."""

from __future__ import annotations

import math

import numpy as np
import pytest

from capsule_edge.evaluation.classification import ece, fit_temperature, operating_points
from capsule_edge.evaluation.classification.calibration import reliability
from capsule_edge.runtime.errors import InputError

pytestmark = pytest.mark.quick


def test_the_temperature_of_two_logits_equals_the_closed_form() -> None:
    # Every frame has logits (2, 0) and 3 of 4 are right: the likelihood peaks where sigmoid(2 / T) = 3 / 4.
    logits = np.tile([2.0, 0.0], (4, 1))
    assert fit_temperature(logits, np.array([0, 0, 0, 1])) == pytest.approx(2 / math.log(3), rel=1e-6)


def test_the_temperature_of_scaled_logits_is_the_factor() -> None:
    random = np.random.default_rng(0)
    logits = random.normal(0, 2, (4000, 5))
    odds = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = (odds.cumsum(axis=1) < random.random((4000, 1))).sum(axis=1)
    # Labels are drawn from softmax(logits): T is 1 up to a sampling error of some 1/sqrt(4000).
    once = fit_temperature(logits, labels)
    assert once == pytest.approx(1, abs=0.06)
    assert fit_temperature(3 * logits, labels) == pytest.approx(3 * once, rel=1e-5)


def test_logits_that_separate_everything_end_at_the_lower_bound() -> None:
    assert fit_temperature(np.eye(3), np.arange(3)) == pytest.approx(0.05, rel=1e-6)
    assert fit_temperature(np.eye(3), np.array([1, 2, 0])) == pytest.approx(20, rel=1e-6)


def test_the_calibration_error_of_two_bins_by_hand() -> None:
    # Confidence .9 and right half the time, confidence .6 and always right: (2 * .4 + 2 * .4) / 4.
    p = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.6, 0.4]])
    labels = np.array([0, 1, 0, 0])
    assert ece(p, labels) == pytest.approx(0.4)
    rows = reliability(p, labels)
    assert [(row["frames"], row["accuracy"]) for row in rows] == [(2, 1.0), (2, 0.5)]
    assert ece(np.eye(2)[[0, 1]], np.array([0, 1])) == 0


def test_a_confidence_on_an_edge_belongs_to_the_lower_bin() -> None:
    assert reliability(np.array([[0.5, 0.5]]), np.array([0]), bins=2)[0]["high"] == 0.5


def test_the_threshold_is_the_best_f1_among_those_specific_enough() -> None:
    # 20 negatives: at most one may be above the threshold for a specificity of .95.
    negative = np.r_[0.8, 0.45, np.full(18, 0.1)]
    positive = np.array([0.9, 0.7, 0.6, 0.3])
    scores = np.r_[negative, positive]
    labels = np.r_[np.zeros(20, int), np.ones(4, int)]
    points = operating_points(np.c_[1 - scores, scores], labels, ["normal", "polyp"], only={"polyp"})
    assert list(points) == ["polyp"]
    point = points["polyp"]
    # Down to .6: three hits, one false, F1 = 6/8; midway to the next answer, .45. To .3: two false.
    assert point.threshold == pytest.approx(0.525)
    assert point.sensitivity == 0.75
    assert point.specificity == pytest.approx(0.95)
    # Without a least specificity .3 is better: F1 = 8/10.
    free = operating_points(np.c_[1 - scores, scores], labels, ["normal", "polyp"], min_specificity=0)
    assert free["polyp"].threshold == pytest.approx(0.2)


def test_no_threshold_lies_between_equal_scores() -> None:
    scores = np.array([0.5, 0.5, 0.5, 0.1])
    point = operating_points(
        np.c_[1 - scores, scores], np.array([1, 1, 0, 0]), ["a", "b"], min_specificity=0
    )["b"]
    seen = scores >= point.threshold
    assert (point.sensitivity, point.specificity) == (seen[:2].mean(), 1 - seen[2:].mean()) == (1.0, 0.5)


def test_a_label_without_frames_gets_no_measurement() -> None:
    p = np.array([[0.8, 0.2, 0.0], [0.3, 0.7, 0.0]])
    point = operating_points(p, np.array([0, 1]), ["a", "b", "c"], measured_on="folds")["c"]
    assert (point.threshold, point.sensitivity, point.specificity) == (0.5, None, None)
    assert point.measured_on == "folds"


@pytest.mark.parametrize(
    ("values", "labels", "word"),
    [
        (np.zeros((0, 2)), np.zeros(0, int), "N > 0"),
        (np.zeros((2, 2)), np.zeros(3, int), "(3,)"),
        (np.array([[np.nan, 1.0]]), np.zeros(1, int), "finite"),
        (np.zeros((1, 2)), np.array([2]), "allowed is 0 to 1"),
    ],
)
def test_values_that_cannot_be_calibrated_are_refused(
    values: np.ndarray, labels: np.ndarray, word: str
) -> None:
    for function in (fit_temperature, ece):
        with pytest.raises(InputError, match=word.replace("(", r"\(").replace(")", r"\)")):
            function(values, labels)


def test_a_least_threshold_is_kept_and_measured() -> None:
    scores = np.array([0.9, 0.45, 0.4, 0.3, 0.2, 0.1])
    labels = np.array([1, 1, 1, 0, 0, 0])
    probabilities = np.stack([1 - scores, scores], axis=1)
    free = operating_points(probabilities, labels, ("normal", "polyp"), only=("polyp",))["polyp"]
    held = operating_points(probabilities, labels, ("normal", "polyp"), only=("polyp",), min_threshold=0.5)[
        "polyp"
    ]
    assert (free.threshold, free.sensitivity) == (pytest.approx(0.35), 1.0)
    assert (held.threshold, held.sensitivity, held.specificity) == (0.5, pytest.approx(1 / 3), 1.0)
