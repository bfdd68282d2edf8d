"""A point of the curve counts recordings by fits that have not seen their videos, with intervals over videos."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from event_samples import SMALL_GRID, ULCERS, MarkedStretch, make_answers
from study_samples import SPEC

from capsule_edge.evaluation.recordings import event_search
from capsule_edge.evaluation.recordings.event_curve import (
    BUDGETS,
    LeftOut,
    count_recording,
    event_curve,
    frame_budgets,
    why_not_left_out,
)
from capsule_edge.evaluation.recordings.event_search import EventSearch, read_with
from capsule_edge.evaluation.recordings.recording_scores import RecordingAnswers

# Twelve stretches of normal mucosa that look more like an ulcer than the ulcers of ULCERS do.
NOISE: list[MarkedStretch] = [
    (10 + 80 * i, 22 + 80 * i, "normal", "ulcer", 0.45) for i in range(12) if i not in (1, 5)
]


@pytest.fixture(autouse=True)
def small_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_search, "GRID", SMALL_GRID)


def leave_out(recordings: list[RecordingAnswers], budgets: tuple[float, ...] = (2.0,)) -> LeftOut:
    return LeftOut.of(SPEC, EventSearch.of(SPEC, recordings), recordings, budgets)


def curve_of(recordings: list[RecordingAnswers], budgets: tuple[float, ...] = (2.0,)) -> dict[str, Any]:
    frames = EventSearch.of(SPEC, recordings, frame_by_frame=True)
    by_frame = LeftOut.of(SPEC, frames, recordings, frame_budgets(budgets))
    return event_curve(SPEC, leave_out(recordings, budgets), by_frame, resamples=300)


def test_a_fit_cannot_see_the_video_that_is_left_out() -> None:
    sound = [make_answers(ULCERS, name=name) for name in "abc"]
    poisoned = [make_answers([*NOISE, *ULCERS], name="a"), *sound[1:]]
    # Fitted on all three, the poisoned recording would move the threshold above its noise ...
    seen = EventSearch.of(SPEC, poisoned).fits([2.0])[0]
    assert read_with(SPEC, poisoned[0], seen).events == []
    # ... left out, it has no say: the fit on the two others finds its ulcers, and its noise too.
    clean, dirty = leave_out(sound).at(2.0), leave_out(poisoned).at(2.0)
    counts = count_recording(poisoned[0], dirty[0])
    assert (counts["hit"], counts["false_on_normal"]) == (2, len(NOISE))
    assert count_recording(sound[0], clean[0])["hit"] == 2
    assert EventSearch.of(SPEC, sound).fits(BUDGETS, [1, 2]) == EventSearch.of(SPEC, poisoned).fits(
        BUDGETS, [1, 2]
    )


def test_all_recordings_of_a_video_are_left_out_together() -> None:
    # The recordings of the video v alone have ulcers that look like ulcers.
    of_v = [make_answers([(100, 120, "ulcer", "ulcer", 0.3)], name=name, video="v") for name in ("v1", "v2")]
    others = [make_answers([(100, 120, "ulcer", "ulcer", 0.9), *NOISE], name=name) for name in "ab"]
    # At this budget, a fit that has seen v lowers the threshold below the noise of the others.
    read = leave_out([*of_v, *others], (20.0,)).at(20.0)
    assert [count_recording(*pair)["hit"] for pair in zip([*of_v, *others], read, strict=True)] == [
        0,
        0,
        1,
        1,
    ]
    alone = [replace(one, video=None) for one in of_v]
    assert count_recording(alone[0], leave_out([*alone, *others], (20.0,)).at(20.0)[0])["hit"] == 1


def test_a_point_counts_the_left_out_readings() -> None:
    recordings = [make_answers(ULCERS, name="a"), make_answers(ULCERS, name="b"), make_answers([], name="c")]
    curve = curve_of(recordings, (1.0, 2.0))
    assert [point["budget"] for point in curve["events"]] == [1.0, 2.0]
    assert curve["videos"] == 3
    assert "not patients" in curve["unit"]
    point = curve["events"][0]
    assert (point["findings"], point["hit"], point["seen"], point["false_events"]) == (4, 4, 4, 0)
    assert (point["hit_share"], point["false_events_per_1000_frames"]) == (1.0, 0.0)
    assert point["frames"] == 3000
    assert point["by_label"]["ulcer"]["right_events"] == 4
    assert point["by_label"]["blood_fresh"]["findings"] == 0


def test_the_frame_by_frame_point_beside_has_as_many_hits() -> None:
    # Frames that flicker: smoothing makes one event of each ulcer, thresholds frame by frame make ten.
    flicker: list[MarkedStretch] = [(100 + 2 * i, 101 + 2 * i, "ulcer", "ulcer", 0.9) for i in range(10)]
    spots: list[MarkedStretch] = [(300 + 50 * i, 301 + 50 * i, "normal", "ulcer", 0.95) for i in range(9)]
    recordings = [make_answers([(100, 120, "ulcer", None, 0.0), *flicker, *spots], name=n) for n in "abc"]
    curve = curve_of(recordings, (1.0, 10.0))
    point = curve["events"][0]
    assert (point["hit"], point["false_events"]) == (point["findings"], 0)
    assert point["frame_by_frame"]["hit"] >= point["hit"]
    assert point["frame_by_frame"]["false_events_per_1000_frames"] == 9.0
    budgets = [point["budget"] for point in curve["frame_by_frame"]]
    assert budgets == [1.0, 10.0, 15.0, 20.0, 30.0, 50.0]


def test_intervals_are_over_videos() -> None:
    missed: list[MarkedStretch] = [(200, 220, "ulcer", None, 0.0)]
    sets = [ULCERS, ULCERS, missed, ULCERS, missed, [*ULCERS, *missed]]
    single = [make_answers(one, name=f"r{at}") for at, one in enumerate(sets)]
    # A second recording of each video, with the same frames, tells nothing new.
    double = [
        replace(one, recording=f"{one.recording} {n}", video=one.recording) for one in single for n in "ab"
    ]
    apart = [replace(one, video=None) for one in double]
    widths = []
    for recordings in (single, double, apart):
        low, high = curve_of(recordings)["events"][0]["intervals"]["hit_share"]
        widths.append(high - low)
    assert widths[0] == widths[1] > widths[2] > 0


def test_it_says_why_no_video_can_be_left_out() -> None:
    def why(*recordings: RecordingAnswers) -> str | None:
        return why_not_left_out(EventSearch.of(SPEC, recordings), recordings)

    one = [make_answers(ULCERS, name=name, video="v") for name in "ab"]
    assert why(*one) == "all recordings (2) are of the video v: it cannot be left out"
    only = "only the video v has a finding: nothing can be fitted on the others"
    assert why(*one, make_answers([], name="c")) == only
    # A label without an operating point is no finding that can be fitted.
    assert why(*one, make_answers([(5, 9, "pylorus", None, 0.0)], name="c")) == only
    assert why(*one, make_answers(ULCERS, name="c")) is None
