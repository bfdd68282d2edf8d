"""Landmarks given by hand or found by a model, the segments of events, and transit times."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from study_samples import SPEC, make_study

from capsule_edge.runtime.errors import UsageError
from capsule_edge.runtime.events import check_landmarks, locate_events, locate_time, parse_landmarks
from capsule_edge.runtime.inference import Label, OperatingPoint
from capsule_edge.runtime.results import study_document
from capsule_edge.runtime.study import Study

pytestmark = pytest.mark.quick

# A model with landmark and quality labels. The models that come with the package have none.
GUIDED = replace(
    SPEC,
    labels=(
        *SPEC.labels,
        Label("pylorus", "Pylorus", "landmark"),
        Label("ileocecal_valve", "Ileocaecal valve", "landmark"),
        Label("reduced_view", "Reduced mucosal view", "quality"),
        Label("bubbles", "Bubbles", "quality"),
    ),
    operating_points={
        **SPEC.operating_points,
        "pylorus": OperatingPoint(0.5),
        "ileocecal_valve": OperatingPoint(0.5),
        "reduced_view": OperatingPoint(0.5),
        "bubbles": OperatingPoint(0.7),
    },
)


def by_hand(study: Study, **marks: float) -> Study:
    """Return the study with landmarks given by hand, name=seconds."""
    return replace(study, landmarks={name.replace("_", "-"): time_s for name, time_s in marks.items()})


def guided_study(*stretches: tuple[int, int, str, float], **more: Any) -> Study:
    """Return a study of 400 frames in which these (first, end, label, probability) were seen."""
    return make_study(400, stretches, spec=GUIDED, **more)


@pytest.mark.parametrize(
    ("text", "name", "time_s"),
    [
        ("small-bowel=00:41:10", "small-bowel", 2470.0),
        ("colon=5:02:00.5", "colon", 18120.5),
        ("stomach=1:30", "stomach", 90.0),
        ("END=28800", "end", 28800.0),
        (" stomach = 12.25 ", "stomach", 12.25),
    ],
)
def test_a_landmark_is_parsed_into_its_name_and_seconds(text: str, name: str, time_s: float) -> None:
    assert parse_landmarks([text]) == {name: time_s}


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (
            ["jejunum=00:10:00"],
            "'jejunum=00:10:00', allowed is NAME=TIME with a NAME of stomach, small-bowel",
        ),
        (["small-bowel"], "allowed is NAME=TIME"),
        (["small-bowel="], "allowed is HH:MM:SS"),
        (["small-bowel=00:61:00"], "allowed is HH:MM:SS"),
        (["small-bowel=00:41:75"], "allowed is HH:MM:SS"),
        (["small-bowel=-5"], "allowed is HH:MM:SS"),
        (["small-bowel=nan"], "allowed is HH:MM:SS"),
        (["colon=1", "colon=2"], "given twice"),
    ],
)
def test_a_malformed_landmark_is_refused(texts: list[str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        parse_landmarks(texts)


def test_landmarks_of_several_recordings_are_refused() -> None:
    assert parse_landmarks([], recordings=3) == {}
    with pytest.raises(UsageError, match="belong to one recording, 2 were given"):
        parse_landmarks(["colon=1"], recordings=2)


@pytest.mark.parametrize(
    ("marks", "words"),
    [
        ({"ileum": 3.0}, "'ileum', allowed is one of stomach"),
        ({"colon": 101.0}, "colon is at 101 s, allowed is 0 to 100 s"),
        ({"colon": -1.0}, "colon is at -1 s"),
        ({"colon": float("nan")}, "colon is nan"),
        ({"colon": "5"}, "colon is '5'"),
        ({"colon": 10.0, "small-bowel": 20.0}, "small-bowel before colon"),
        ({"stomach": 10.0, "end": 10.0}, "stomach before end"),
    ],
)
def test_impossible_landmarks_are_refused(marks: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        check_landmarks(marks, last_s=100.0)


def test_landmarks_are_returned_in_the_order_of_the_gut() -> None:
    assert list(check_landmarks({"colon": 9, "stomach": 0}, last_s=10.0)) == ["stomach", "colon"]


def test_landmarks_by_hand_give_transit_times_and_positions() -> None:
    # Peaks near 10 s and 30 s of 60 s, in capture time.
    study = by_hand(make_study(), stomach=2.0, small_bowel=20.0, colon=40.0)
    found = locate_events(study)
    peaks_s = [event.peak_s for event in study.events]
    assert (found.gastric_s, found.gastric_from) == (18.0, "stomach")
    assert (found.small_bowel_s, found.colon_s, found.transit_unknown) == (20.0, None, None)
    first, second = found.positions
    assert (first.segment, first.share) == ("stomach", pytest.approx((peaks_s[0] - 2) / 18))
    assert (second.segment, second.share) == ("small-bowel", pytest.approx((peaks_s[1] - 20) / 20))


def test_missing_landmarks_leave_segments_and_times_unknown() -> None:
    assert locate_events(make_study()).positions == ()
    only_colon = locate_events(by_hand(make_study(), colon=40.0))
    assert [place.segment for place in only_colon.positions] == [None, None]  # stomach or small bowel
    assert (only_colon.gastric_s, only_colon.small_bowel_s) == (None, None)
    only_entry = locate_events(by_hand(make_study(), small_bowel=20.0))
    assert (only_entry.gastric_s, only_entry.gastric_from) == (20.0, "recording")
    # The second event may lie in the colon: no landmark says where the colon begins.
    assert [(p.segment, p.share) for p in only_entry.positions] == [("stomach", 0.5), (None, None)]
    late = locate_events(by_hand(make_study(), stomach=12.0, colon=14.0, end=16.0))
    assert [place.segment for place in late.positions] == ["oesophagus", "after-end"]
    assert late.colon_s == 2.0


def test_the_end_itself_lies_before_the_end() -> None:
    at = {"colon": 4.0, "end": 16.0}
    assert [locate_time(time_s, at) for time_s in (15.0, 16.0, 16.5)] == [
        ("colon", 11 / 12), ("colon", 1.0), ("after-end", None),
    ]  # fmt: skip
    # What lies between duodenum and end is not known where no picture of the caecum is marked.
    assert locate_time(16.0, {"small-bowel": 0.0, "end": 16.0}) == (None, None)


def test_transit_needs_the_capture_rate_of_a_playback_file() -> None:
    played = by_hand(make_study(step_s=1 / 30), small_bowel=1.0, colon=3.0)
    found = locate_events(played)
    assert (found.gastric_s, found.small_bowel_s, found.transit_unknown) == (None, None, "capture rate")
    assert found.positions[1].share is not None  # a share needs no rate
    # The file plays 30 frames a second that the capsule took at 3 a second: ten times as long.
    known = locate_events(by_hand(make_study(step_s=1 / 30, capture_fps=3.0), small_bowel=1.0, colon=3.0))
    assert known.small_bowel_s == pytest.approx(20.0)
    assert known.transit_unknown is None


def test_a_model_with_landmark_labels_sets_the_landmarks() -> None:
    study = guided_study(
        (20, 30, "pylorus", 0.9),
        (60, 70, "pylorus", 0.9),
        (100, 120, "ulcer", 0.9),
        (300, 310, "ileocecal_valve", 0.9),
    )
    found = locate_events(study)
    assert [(m.name, m.source, m.label) for m in found.marks] == [
        ("small-bowel", "model", "pylorus"),
        ("colon", "model", "ileocecal_valve"),
    ]
    # The last event of a landmark counts; smoothing over 2 s adds about a frame on either side.
    entry, valve = (mark.time_s for mark in found.marks)
    assert entry == pytest.approx(35.0, abs=1.0)
    assert valve == pytest.approx(155.0, abs=1.0)
    assert found.small_bowel_s == pytest.approx(valve - entry)
    (place,) = found.positions
    assert (place.segment, place.share) == ("small-bowel", pytest.approx((50 - entry) / (valve - entry)))
    document = study_document(study)["landmarks"]
    assert document["assessed"] is True
    assert document["marks"][0] == {
        "name": "small-bowel",
        "time_s": entry,
        "source": "model",
        "label": "pylorus",
    }


def test_a_landmark_by_hand_replaces_that_of_the_model() -> None:
    study = by_hand(
        guided_study((20, 30, "pylorus", 0.9), (300, 310, "ileocecal_valve", 0.9)), small_bowel=40.0
    )
    assert next((m.name, m.time_s, m.source) for m in locate_events(study).marks) == (
        "small-bowel",
        40.0,
        "hand",
    )
    # The model's other landmark stays.
    assert [mark.name for mark in locate_events(study).marks] == ["small-bowel", "colon"]
    # A valve that the model saw before the pylorus given by hand is ignored.
    late = by_hand(study, small_bowel=180.0)
    assert [mark.name for mark in locate_events(late).marks] == ["small-bowel"]
    # So is a pylorus that the model saw after the colon given by hand.
    early = replace(study, landmarks={"colon": 10.0})
    assert [mark.name for mark in locate_events(early).marks] == ["colon"]


def test_a_landmark_that_was_not_seen_is_not_set() -> None:
    document = study_document(guided_study())["landmarks"]
    assert document["assessed"] is True
    assert (document["marks"], document["positions"]) == ([], None)


def test_a_frame_with_two_quality_labels_is_counted_once() -> None:
    study = guided_study((0, 100, "reduced_view", 0.6), (90, 120, "bubbles", 0.8))
    quality = study_document(study)["quality"]
    # Frames 0 to 99 and 90 to 119 are 120 of 400, not 130. In frames with both labels, 0.6 and 0.8 add up to more
    # than 1, which does not matter here.
    assert (quality["reduced_frames"], quality["reduced_share"]) == (120, 0.3)
    assert [label["frames"] for label in quality["labels"]] == [100, 30]
    nothing_read = guided_study(statuses=dict.fromkeys(range(400), "corrupt"))
    assert study_document(nothing_read)["quality"]["reduced_share"] is None
