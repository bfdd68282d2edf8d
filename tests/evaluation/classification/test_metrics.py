"""Metrics against cases worked by hand, and intervals against cases with a known answer."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, matthews_corrcoef, roc_auc_score, roc_curve

from capsule_edge.evaluation.classification import (
    Predictions,
    evaluate,
    interval,
    rates,
    resample_videos,
    resampled_figures,
)
from capsule_edge.evaluation.classification.bootstrap import (
    Resamples,
    confusion_by_video,
    weighted_auc,
    weighted_average_precision,
    weighted_sensitivity,
)
from capsule_edge.evaluation.classification.curves import ABNORMAL, POINTS, curves

KEYS = ("normal", "polyp", "ulcer")


def made(
    labels: Sequence[int],
    probabilities: object,
    videos: Sequence[str | None] | None = None,
    sources: Sequence[str | None] | None = None,
    keys: Sequence[str] = KEYS,
) -> Predictions:
    count = len(labels)
    return Predictions(
        files=tuple(f"{i}.png" for i in range(count)),
        labels=np.array(labels, np.intp),
        video_ids=tuple(videos or [f"v{i}" for i in range(count)]),
        sources=tuple(sources or [None] * count),
        probabilities=np.array(probabilities, np.float32),
        keys=tuple(keys),
    )


def answered(labels: Sequence[int], answers: Sequence[int], **more: object) -> Predictions:
    return made(labels, np.eye(3)[list(answers)] * 0.8 + 0.2 / 3, **more)


@pytest.mark.quick
def test_a_confusion_of_three_classes_by_hand() -> None:
    # normal: 3 of 4 right, 1 as polyp; polyp: 1 of 2 right, 1 as normal; ulcer: 2 of 2 right.
    document = evaluate(answered([0, 0, 0, 0, 1, 1, 2, 2], [0, 0, 0, 1, 1, 0, 2, 2]), resamples=0)
    assert document["accuracy"] == 6 / 8
    assert document["confusion"]["matrix"] == [[3, 1, 0], [1, 1, 0], [0, 0, 2]]
    assert document["precision"]["macro"] == pytest.approx((3 / 4 + 1 / 2 + 1) / 3)
    assert document["recall"] == pytest.approx({"macro": 0.75, "micro": 0.75, "weighted": 0.75})
    assert document["f1"]["weighted"] == pytest.approx((4 * 0.75 + 2 * 0.5 + 2 * 1) / 8)
    assert document["macro_f1"] == document["f1"]["macro"] == pytest.approx(0.75)
    assert document["balanced_accuracy"] == pytest.approx(0.75)
    polyp = document["per_class"]["polyp"]
    assert (polyp["support"], polyp["videos"]) == (2, 2)
    assert (polyp["precision"], polyp["recall"], polyp["specificity"]) == (0.5, 0.5, 5 / 6)
    assert document["majority_baseline"]["label"] == "normal"
    assert document["majority_baseline"]["accuracy"] == 0.5
    # F1 of "always normal": 2 * 4 / (8 + 4) for normal, 0 for the other two.
    baseline = document["majority_baseline"]
    assert baseline["macro_f1"] == baseline["f1"]["macro"] == pytest.approx(2 / 9)
    # Only normal is ever answered, so only its precision is defined.
    assert baseline["precision"] == {"macro": 0.5, "micro": 0.5, "weighted": 0.5}
    assert baseline["recall"] == pytest.approx({"macro": 1 / 3, "micro": 0.5, "weighted": 0.5})
    assert baseline["mcc"] is None
    # A constant score ranks nothing: AUC .5, PR-AUC the share of abnormal frames, no sensitivity.
    assert baseline["normal_vs_abnormal"] == {
        "auc": 0.5, "pr_auc": 0.5, "sensitivity_at_specificity": {"0.90": 0.0, "0.95": 0.0}
    }  # fmt: skip
    assert document["confidence_intervals"] is None


@pytest.mark.quick
def test_undefined_figures_are_null_and_not_zero() -> None:
    # No frame of ulcer, and polyp is never answered.
    document = evaluate(answered([0, 0, 1], [0, 0, 0]), resamples=50)
    assert document["averaged_over"] == ["normal", "polyp"]
    ulcer, polyp = document["per_class"]["ulcer"], document["per_class"]["polyp"]
    assert {name: ulcer[name] for name in ("precision", "recall", "f1", "auc", "pr_auc")} == dict.fromkeys(
        ("precision", "recall", "f1", "auc", "pr_auc")
    )
    assert ulcer["support"] == 0
    assert polyp["precision"] is None
    assert polyp["recall"] == polyp["f1"] == 0  # defined: it has a frame, which was missed
    assert document["mcc"] is None
    assert document["macro_f1"] == pytest.approx((0.8 + 0) / 2)
    assert document["balanced_accuracy"] == 0.5
    assert "NaN" not in json.dumps(document)
    json.dumps(document, allow_nan=False)


def test_one_class_alone_has_no_auc() -> None:
    document = evaluate(answered([1, 1], [1, 0]), resamples=20)
    assert document["mean_auc"] is None
    assert document["normal_vs_abnormal"]["auc"] is None
    assert document["normal_vs_abnormal"]["sensitivity_at_specificity"] == {"0.90": None, "0.95": None}
    assert document["majority_baseline"]["mean_auc"] is None
    assert document["per_class"]["polyp"]["specificity"] is None


@pytest.mark.quick
def test_mean_auc_is_over_the_classes_present() -> None:
    p = [[0.9, 0.1, 0.0], [0.6, 0.4, 0.0], [0.7, 0.3, 0.0], [0.2, 0.8, 0.0]]
    document = evaluate(made([0, 0, 1, 1], p), resamples=0)
    # polyp .3 and .8 against normal .1 and .4: three of four pairs in order; the same pairs for normal.
    assert document["per_class"]["polyp"]["auc"] == document["mean_auc"] == 0.75


def test_normal_against_abnormal_sums_the_findings() -> None:
    # Half normal, and the finding is always split between the two: no single column would separate them.
    p = [[0.6, 0.4, 0.0]] * 10 + [[0.4, 0.3, 0.3]] * 10
    document = evaluate(made([0] * 10 + [1] * 10, p), resamples=0)
    binary = document["normal_vs_abnormal"]
    assert (binary["auc"], binary["normal_frames"], binary["abnormal_frames"]) == (1.0, 10, 10)
    assert binary["sensitivity_at_specificity"] == {"0.90": 1.0, "0.95": 1.0}
    swapped = evaluate(made([0] * 10 + [1] * 10, p), findings=["ulcer"], resamples=0)
    assert swapped["normal_vs_abnormal"]["abnormal_frames"] == 0


def test_a_specificity_of_ninety_percent_allows_one_false_frame_of_ten() -> None:
    # 10 normal frames: .90 allows one above the threshold, .95 none. One normal frame lies above half of
    # the findings.
    p = [[0.9, 0.1, 0]] * 9 + [[0.5, 0.5, 0]] + [[0.6, 0.4, 0]] * 5 + [[0.2, 0.8, 0]] * 5
    binary = evaluate(made([0] * 10 + [1] * 10, p), resamples=0)["normal_vs_abnormal"]
    assert binary["sensitivity_at_specificity"] == {"0.90": 1.0, "0.95": 0.5}


def test_thresholds_on_a_straight_part_of_the_curve_count() -> None:
    # Twenty scores, each of one normal and one abnormal frame: specificity .90 leaves the highest two.
    scores = np.repeat(np.arange(20), 2) / 20
    document = evaluate(made([0, 1] * 20, np.c_[1 - scores, scores, np.zeros(40)]), resamples=0)
    assert document["normal_vs_abnormal"]["sensitivity_at_specificity"] == {"0.90": 0.1, "0.95": 0.05}


def test_tables_by_source_and_video_count_their_own_frames() -> None:
    document = evaluate(
        answered([0, 1, 0, 1], [0, 1, 1, 0], videos=["a", "a", "b", None], sources=["X", "X", "Y", "Y"]),
        resamples=50,
    )
    assert document["per_source"]["X"]["accuracy"] == 1
    assert document["per_source"]["Y"]["accuracy"] == 0
    assert {name: entry["frames"] for name, entry in document["per_video"].items()} == {"a": 2, "b": 1}
    assert document["per_video"]["b"]["support"] == {"normal": 1}
    assert document["per_source"]["X"]["majority_accuracy"] == 0.5
    assert document["per_video"]["b"]["majority_accuracy"] == 1


def test_rates_agree_with_scikit_learn() -> None:
    random = np.random.default_rng(1)
    labels, guesses = random.integers(0, 3, 200), random.integers(0, 3, 200)
    document = evaluate(answered(labels.tolist(), guesses.tolist(), videos=["v"] * 200), resamples=0)
    own = rates(confusion_by_video(labels, guesses, np.zeros(200, np.intp), 3)[0])
    for name in ("accuracy", "macro_f1", "balanced_accuracy", "mcc"):
        assert own[name] == pytest.approx(document[name])
    assert own["mcc"] == pytest.approx(matthews_corrcoef(labels, guesses))


def test_the_weighted_auc_equals_the_auc_of_repeated_frames() -> None:
    random = np.random.default_rng(2)
    scores = random.integers(0, 12, 60) / 12  # with many ties
    positive = random.random(60) < 0.4
    video = np.repeat(np.arange(6), 10)
    counts = random.multinomial(6, np.full(6, 1 / 6), size=250).astype(float)
    found = weighted_auc(scores, positive, Resamples(video, counts))
    for count, value in zip(counts, found, strict=True):
        again = np.repeat(np.arange(60), count[video].astype(int))
        assert value == pytest.approx(roc_auc_score(positive[again], scores[again]))
    assert np.isnan(weighted_auc(scores, np.ones(60, bool), Resamples(video, counts))).all()


def test_resampled_figures_equal_those_of_the_drawn_videos() -> None:
    random = np.random.default_rng(3)
    labels, p = random.integers(0, 3, 90), random.dirichlet(np.ones(3), 90)
    drawn = resample_videos([f"v{i % 9}" for i in range(90)], resamples=5, seed=4)
    assert drawn is not None
    found = resampled_figures(labels, p, drawn)
    for r, count in enumerate(drawn.counts):
        again = np.repeat(np.arange(90), count[drawn.video].astype(int))
        # One video for all: a row for each of 90 videos would take most of the time.
        document = evaluate(made(labels[again].tolist(), p[again], videos=["v"] * len(again)), resamples=0)
        for name in ("accuracy", "macro_f1", "mcc", "mean_auc"):
            assert found[name][r] == pytest.approx(document[name], abs=1e-6)


def test_the_width_of_the_interval_depends_on_the_videos_and_not_the_frames() -> None:
    # Each video is right or wrong as a whole: 300 frames of 12 videos say no more than 12 draws of a coin.
    right = np.array([1, 0] * 6)
    labels, videos = [0] * 300, [f"v{i // 25}" for i in range(300)]
    answers = [0 if right[i // 25] else 1 for i in range(300)]
    low, high = evaluate(answered(labels, answers, videos=videos))["confidence_intervals"]["accuracy"]
    # The quantiles of a binomial of 12 draws at one half are 3 and 9.
    assert low == pytest.approx(0.25, abs=0.001)
    assert high == pytest.approx(0.75, abs=0.001)
    independent = answered(labels, answers)
    drawn = resample_videos(independent.video_ids)
    assert drawn is not None
    accuracy = resampled_figures(independent.labels, independent.probabilities, drawn)["accuracy"]
    frames = interval(accuracy)
    assert frames is not None
    assert frames[1] - frames[0] < 0.13  # 4 standard errors of 300 independent frames, rounded up


def test_the_interval_depends_on_the_seed_alone() -> None:
    random = np.random.default_rng(5)
    predictions = answered(
        random.integers(0, 3, 120).tolist(),
        random.integers(0, 3, 120).tolist(),
        videos=[f"v{i % 8}" for i in range(120)],
    )
    once, again, other = (
        evaluate(predictions, resamples=200, seed=s)["confidence_intervals"] for s in (1, 1, 2)
    )
    assert once == again
    assert once["macro_f1"] != other["macro_f1"]


@pytest.mark.parametrize("videos", [["v"] * 4, ["v", "w", None, "x"]])
def test_without_videos_to_draw_there_are_no_intervals(videos: list[str | None]) -> None:
    found = evaluate(answered([0, 0, 1, 1], [0, 1, 1, 1], videos=videos))["confidence_intervals"]
    assert found["accuracy"] is found["mean_auc"] is None
    assert "video" in found["reason"]


def test_a_class_of_one_video_has_no_interval() -> None:
    labels = [0, 1] * 20 + [2] * 5
    videos = [f"v{i % 10}" for i in range(40)] + ["only"] * 5
    found = evaluate(answered(labels, labels, videos=videos))["confidence_intervals"]["per_class"]
    assert found["ulcer"]["recall"] is None
    assert found["polyp"]["recall"] == [1.0, 1.0]


@pytest.mark.quick
def test_an_interval_needs_nine_tenths_of_its_resamples() -> None:
    values = np.arange(100.0)
    values[:10] = np.nan
    assert interval(values) is not None
    values[10] = np.nan
    assert interval(values) is None


def test_the_weighted_precision_area_and_sensitivity_equal_those_of_repeated_frames() -> None:
    random = np.random.default_rng(6)
    scores = random.integers(0, 12, 60) / 12  # with many ties
    positive = random.random(60) < 0.4
    video = np.repeat(np.arange(6), 10)
    drawn = Resamples(video, random.multinomial(6, np.full(6, 1 / 6), size=150).astype(float))
    areas = weighted_average_precision(scores, positive, drawn)
    hits = weighted_sensitivity(scores, positive, drawn, 0.9)
    for number, (count, area, hit) in enumerate(zip(drawn.counts, areas, hits, strict=True)):
        again = np.repeat(np.arange(60), count[video].astype(int))
        false, true, _ = roc_curve(positive[again], scores[again], drop_intermediate=False)
        assert area == pytest.approx(average_precision_score(positive[again], scores[again]))
        # 1 - .9 is .09999999999999998: a rate of exactly one tenth is allowed.
        assert hit == pytest.approx(true[false <= 0.1 + 1e-9].max())
        if number < 10:  # ``evaluate`` takes the same figures from scikit-learn, ten resamples show that
            p = np.c_[1 - scores[again], scores[again], np.zeros(len(again))]
            frames = made(positive[again].astype(int).tolist(), p, videos=["v"] * len(again))
            whole = evaluate(frames, resamples=0)["normal_vs_abnormal"]
            assert area == pytest.approx(whole["pr_auc"])
            assert hit == pytest.approx(whole["sensitivity_at_specificity"]["0.90"])
    for nothing in (np.ones(60, bool), np.zeros(60, bool)):
        assert np.isnan(weighted_average_precision(scores, nothing, drawn)).all()
        assert np.isnan(weighted_sensitivity(scores, nothing, drawn, 0.9)).all()


def test_mean_pr_auc_and_the_majority_baseline() -> None:
    p = [[0.9, 0.1, 0.0], [0.6, 0.4, 0.0], [0.7, 0.3, 0.0], [0.2, 0.8, 0.0]]
    document = evaluate(made([0, 0, 1, 1] * 4, p * 4), resamples=100)
    # polyp: .8 hit, .4 false, .3 hit: half of 1 and half of 2/3. normal: .9 hit, .7 false, .6 hit: the same.
    assert document["per_class"]["polyp"]["pr_auc"] == pytest.approx(5 / 6)
    assert document["mean_pr_auc"] == pytest.approx(5 / 6)
    assert document["normal_vs_abnormal"]["pr_auc"] == pytest.approx(5 / 6)
    assert document["majority_baseline"]["mean_pr_auc"] == 0.5
    low, high = document["confidence_intervals"]["mean_pr_auc"]
    assert 0 <= low <= 5 / 6 <= high <= 1
    assert set(document["confidence_intervals"]["sensitivity_at_specificity"]) == {"0.90", "0.95"}


def test_curves_keep_their_ends_and_their_area() -> None:
    random = np.random.default_rng(7)
    labels = random.integers(0, 2, 4000)
    score = np.clip(random.normal(0.4 + 0.2 * labels, 0.2), 0, 1)
    predictions = made(labels.tolist(), np.c_[1 - score, score, np.zeros(4000)])
    found = curves(predictions, np.array([False, True, True]))
    assert set(found) == {"normal", "polyp", ABNORMAL}  # no frame of ulcer
    roc, pr = found["polyp"]["roc"], found["polyp"]["precision_recall"]
    assert len(roc["sensitivity"]) <= POINTS
    assert (roc["false_positive_rate"][0], roc["sensitivity"][0]) == (0, 0)
    assert (roc["false_positive_rate"][-1], roc["sensitivity"][-1]) == (1, 1)
    # Steps of a hundredth of the way cut a corner by half the square of a step at most, 100 times: .02.
    area = np.trapezoid(roc["sensitivity"], roc["false_positive_rate"])
    assert area == pytest.approx(roc_auc_score(labels == 1, score), abs=0.02)
    assert pr["recall"][0] == 0
    assert pr["recall"][-1] == 1
    # All frames called: the precision is the share of the class.
    assert pr["precision"][-1] == pytest.approx((labels == 1).mean(), abs=0.02)
