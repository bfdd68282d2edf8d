"""Measures of events: what each of them is, from ``frames.csv`` as from the frames, and the score they make."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from study_samples import SPEC, make_study
from video_samples import read, recording

from capsule_edge.runtime import Reader
from capsule_edge.runtime.events import measure_events, score_event
from capsule_edge.runtime.events.event_measures import feature_distance
from capsule_edge.runtime.inference import MEASURES, SuggestionWeights
from capsule_edge.runtime.study import Study


def measure(study: Study, scale: float = 1.0):
    return measure_events(study.events, study.frames, study.model, scale=scale)


@pytest.mark.quick
def test_frames_that_were_set_aside_take_no_part() -> None:
    study = make_study(stretches=[(20, 40, "ulcer", 0.9)])
    aside = [
        replace(frame, detail="unfamiliar", probabilities=frame.probabilities[::-1].copy())
        if 25 <= frame.index < 30
        else frame
        for frame in study.frames
    ]
    (before,) = measure_events(study.events, study.frames, study.model, scale=1.0)
    (after,) = measure_events(study.events, aside, study.model, scale=1.0)
    assert after.values["frames"] == pytest.approx(math.log(math.exp(before.values["frames"]) - 5))
    assert after.values["peak"] == before.values["peak"]
    assert after.mean_p < before.mean_p  # of 15 and 20 frames, one is not ulcer


@pytest.mark.quick
def test_the_measures_are_those_of_the_answered_frames_of_the_event() -> None:
    # Frames 20 to 39 have .9 of ulcer, .01 of blood and .09 of normal. Smoothing takes frame 40 in, where normal has
    # .98; frame 30 was not read and takes no part.
    study = make_study(stretches=[(20, 40, "ulcer", 0.9)], statuses={30: "corrupt"})
    (one,) = measure(study, scale=2.0)
    event = study.events[0]
    assert (event.start_index, event.end_index, event.frames) == (20, 40, 20)
    mean = (19 * 0.9 + 0.01) / 20
    normal = (19 * 0.09 + 0.98) / 20
    assert one.mean_p == pytest.approx(mean, abs=1e-6)  # probabilities have six decimals
    assert set(one.values) == set(MEASURES)
    assert one.values["mean"] == pytest.approx(math.log(mean / (1 - mean)), abs=1e-5)
    assert one.values["peak"] == pytest.approx(math.log(0.9 / 0.1), abs=1e-4)
    assert one.values["frames"] == pytest.approx(math.log(20))
    assert one.values["top_share"] == pytest.approx(19 / 20)
    margin = (19 * math.log(0.9 / 0.09) + math.log(0.01 / 0.98)) / 20
    assert one.values["margin"] == pytest.approx(margin, abs=1e-4)
    assert one.values["abnormal"] == pytest.approx(math.log((1 - normal) / normal), abs=1e-4)
    assert (one.begin_s, one.end_s) == (2 * event.start_s, 2 * event.end_s)


@pytest.mark.quick
def test_certain_answers_and_absent_frames_give_finite_measures() -> None:
    study = make_study(stretches=[(20, 40, "ulcer", 0.98)])
    for frame in study.frames[20:41]:
        frame.probabilities[:] = (0, 1, 0)
    assert np.isfinite(list(measure(study)[0].values.values())).all()
    (one,) = measure(replace(study, frames=[]))
    assert one.mean_p == pytest.approx(study.events[0].peak_p, abs=1e-6)
    assert np.isfinite([*one.values.values(), *one.features]).all()


@pytest.mark.quick
def test_a_score_is_the_logistic_function_of_the_weighted_measures() -> None:
    (one,) = measure(make_study(stretches=[(20, 40, "ulcer", 0.9)]))
    weights = SuggestionWeights(-1.0, {"mean": 0.5, "top_share": 2.0}, {"ulcer": 0.25, "blood_fresh": 9.0})
    total = -1 + 0.25 + 0.5 * one.values["mean"] + 2 * one.values["top_share"]
    assert score_event(one, weights) == round(1 / (1 + math.exp(-total)), 6)
    assert score_event(one, None) == round(one.mean_p, 6)
    for sign, score in ((1, 1.0), (-1, 0.0)):
        assert score_event(one, SuggestionWeights(sign * 1e6, {}, {})) == score


@pytest.mark.quick
def test_events_are_compared_by_their_features_without_the_mean_over_the_labels() -> None:
    # The softmax of logits / temperature; every frame of an event has the same logits, up to a number for all labels.
    spec = replace(SPEC, temperature=2.0)
    logits = np.array([[0.0, 3.0, -1.0], [1.0, 2.5, 0.5]])
    study = make_study(stretches=[(20, 40, "ulcer", 0.9), (60, 80, "ulcer", 0.9)], spec=spec)
    first, second = study.events
    for event, row in zip((first, second), logits, strict=True):
        values = np.exp((row + event.id) / 2)
        for frame in study.frames[event.start_index : event.end_index + 1]:
            frame.probabilities[:] = values / values.sum()
    a, b = measure(study)
    centred = logits - logits.mean(axis=1, keepdims=True)
    # Six decimals of a probability of .08 or more are 1e-5 of its logarithm, times the temperature.
    np.testing.assert_allclose(a.features, centred[0], atol=2e-5)
    distance = feature_distance(a.features, np.stack([a.features, b.features]))
    expected = math.sqrt(((centred[0] - centred[1]) ** 2).mean())
    np.testing.assert_allclose(distance, [0, expected], atol=2e-5)


def test_features_are_those_of_the_model_on_real_frames() -> None:
    with Reader.open() as reader:
        frames = (frame.rgb() for frame in read(recording("2fc3db471f9d44c0"))[1])
        answers = list(reader.stream(frames, batch=16))
        temperature = reader.spec.temperature
    theirs = np.array([answer.features.mean(axis=(0, 1)) for answer in answers])
    theirs -= theirs.mean(axis=1, keepdims=True)
    p = np.round([answer.probabilities.astype(np.float64) for answer in answers], 6)
    logs = np.log(np.maximum(p, 1e-6))
    ours = temperature * (logs - logs.mean(axis=1, keepdims=True))
    known = p.min(axis=1) > 2e-5  # where six decimals are 2.5 % of each probability or better
    assert known.sum() > 20
    # The bias of the classifier is the same for all frames.
    difference = (ours - theirs)[known]
    difference -= difference.mean(axis=0)
    # .025 of a logarithm times the temperature of 1.1, from the six decimals; the mean of the INT8 file's features
    # differs from its logits by up to the same. Frames differ by .67 (standard deviation).
    assert np.abs(difference).max() < 0.06
    assert theirs[known].std(axis=0).mean() > 0.5
