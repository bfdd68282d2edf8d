"""The rules of events: how they open, end, join and are divided, in regular, irregular and damaged recordings."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np
import pytest

from capsule_edge.runtime.events import capture_scale, find_events, median_frame_distance, smooth
from capsule_edge.runtime.inference import EventParameters, InputSpec, Label, ModelSpec, OperatingPoint
from capsule_edge.runtime.study import Event, FrameRecord

pytestmark = pytest.mark.quick

SPEC = ModelSpec(
    name="test",
    version="1",
    precision="int8",
    labels=(
        Label("normal", "Normal", "normal"),
        Label("ulcer", "Ulcer", "finding"),
        Label("blood", "Blood", "finding"),
        Label("pylorus", "Pylorus", "landmark"),
        Label("polyp", "Polyp", "finding"),
    ),
    input=InputSpec(96),
    temperature=1.0,
    operating_points={
        "ulcer": OperatingPoint(0.5),
        "blood": OperatingPoint(0.7),
        "pylorus": OperatingPoint(0.1),
    },
    events=EventParameters(),
    license="Apache-2.0",
)
STEP_S = 0.5  # two frames a second, the rate at which a capsule commonly records


def with_events(**changes: float) -> ModelSpec:
    return dataclasses.replace(SPEC, events=dataclasses.replace(SPEC.events, **changes))


def recording(
    values: Iterable[float | None],
    *,
    label: str = "ulcer",
    times: Sequence[float] | None = None,
    step_s: float = STEP_S,
) -> list[FrameRecord]:
    """Return frames with these probabilities of one label; None makes a corrupt frame."""
    frames = []
    for index, value in enumerate(values):
        time_s = times[index] if times is not None else index * step_s
        if value is None:
            frames.append(FrameRecord(index, "corrupt", pts=index, time_s=time_s, detail="damaged"))
            continue
        probabilities = np.zeros(len(SPEC.labels), np.float32)
        probabilities[SPEC.keys.index(label)] = value
        frames.append(FrameRecord(index, "classified", pts=index, time_s=time_s, probabilities=probabilities))
    return frames


def events(
    frames: Sequence[FrameRecord], spec: ModelSpec = SPEC, *, step_s: float | None = STEP_S
) -> list[Event]:
    return find_events(frames, spec, median_distance_s=step_s, time_kind="capture")


def spans(found: Sequence[Event]) -> list[tuple[int, int]]:
    return [(event.start_index, event.end_index) for event in found]


# Without smoothing the other rules can be computed by hand.
PLAIN = with_events(smoothing_s=0.0)


@pytest.mark.parametrize(
    "frames",
    [
        [],
        recording([0.9]),
        recording([None] * 50),
        [FrameRecord(i, "missing") for i in range(9)],
        recording([0.0] * 50),
    ],
    ids=["no frame", "one frame", "all corrupt", "all missing", "nothing seen"],
)
def test_a_recording_without_a_finding_has_no_event(frames: list[FrameRecord]) -> None:
    assert events(frames) == []


def test_one_frame_is_an_event_if_min_frames_is_one() -> None:
    (event,) = events(recording([0.9]), with_events(min_frames=1), step_s=None)
    assert (event.start_s, event.end_s, event.frames) == (0.0, 0.0, 1)


def test_all_fields_of_an_event() -> None:
    (event,) = events(recording([0] * 4 + [0.6, 0.8, 0.95, 0.8] + [0] * 4), PLAIN)
    assert event == Event(
        id=1,
        label="ulcer",
        role="finding",
        start_index=4,
        end_index=7,
        start_s=2.0,
        end_s=4.0,  # the time of frame 8, the first behind the event
        peak_index=6,
        peak_s=3.0,
        peak_p=pytest.approx(0.95, abs=1e-7),  # float32
        frames=4,
    )


def test_hysteresis_opens_at_the_threshold_and_ends_below_the_release() -> None:
    # The threshold is 0.5 and the release 0.6 of it, 0.3: 0.4 opens no event, but does not end an open one.
    assert spans(events(recording([0, 0.4, 0.4, 0.5, 0.5, 0.4, 0.3, 0.29, 0]), PLAIN)) == [(3, 6)]
    assert events(recording([0.45] * 40), PLAIN) == []


@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.7, 0.9])
def test_a_float32_probability_equal_to_the_threshold_opens_an_event(threshold: float) -> None:
    spec = dataclasses.replace(SPEC, operating_points={"ulcer": OperatingPoint(threshold)})
    assert spans(events(recording([threshold] * 2000), spec)) == [(0, 1999)]


def test_an_event_has_at_least_min_frames() -> None:
    assert events(recording([0, 0, 0.9, 0.9, 0, 0]), PLAIN) == []
    assert spans(events(recording([0, 0, 0.9, 0.9, 0.9, 0, 0]), PLAIN)) == [(2, 4)]


def test_events_of_a_label_within_max_gap_s_are_joined() -> None:
    burst = [0.9] * 3
    # max_gap_s is 5. With nine frames between, the last and the first are 10 steps of 0.5 s apart, exactly 5 s; with
    # ten they are 5.5 s apart.
    assert spans(events(recording(burst + [0] * 9 + burst), PLAIN)) == [(0, 14)]
    assert spans(events(recording(burst + [0] * 10 + burst), PLAIN)) == [(0, 2), (13, 15)]


def test_a_gap_in_time_divides_smoothing_and_events() -> None:
    times = [i * 0.5 for i in range(4)] + [100 + i * 0.5 for i in range(4)]
    found = events(recording([0.9] * 8, times=times), with_events(smoothing_s=1000.0))
    assert spans(found) == [(0, 3), (4, 7)]
    # The next frame is far away, so the first event ends one usual frame distance after its last frame.
    assert [(event.start_s, event.end_s) for event in found] == [(0.0, 2.0), (100.0, 102.0)]

    smoothed = smooth(np.array([1.0, 0.0]), np.array([0.0, 5.1]), window_s=1000.0, max_gap_s=5.0)
    assert smoothed.tolist() == [1.0, 0.0]
    smoothed = smooth(np.array([1.0, 0.0]), np.array([0.0, 4.9]), window_s=1000.0, max_gap_s=5.0)
    assert smoothed.tolist() == [0.5, 0.5]


def test_smoothing_spans_seconds_not_frames() -> None:
    dense = np.arange(100) * 0.1
    value = np.zeros(100)
    value[50] = 1.0
    smoothed = smooth(value, dense, window_s=2.0, max_gap_s=5.0)
    # One second to either side, both ends within: 21 frames.
    assert np.count_nonzero(smoothed) == 21
    assert smoothed[50] == pytest.approx(1 / 21, abs=1e-6)  # six decimals are kept


def test_smoothing_removes_one_positive_frame_but_not_a_run() -> None:
    assert events(recording([0] * 20 + [1.0] + [0] * 20)) == []
    (event,) = events(recording([0] * 20 + [1.0] * 6 + [0] * 20))
    assert event.frames >= 6


def test_corrupt_frames_neither_count_nor_end_an_event() -> None:
    (event,) = events(recording([0.9, 0.9, None, None, 0.9, None]), PLAIN)
    assert (event.start_index, event.end_index, event.frames) == (0, 4, 3)
    assert event.end_s == 2.5  # the corrupt frame after the last is still the next frame
    # 12 corrupt frames are 6.5 s: longer than max_gap_s.
    assert spans(events(recording([0.9] * 3 + [None] * 12 + [0.9] * 3), PLAIN)) == [(0, 2), (15, 17)]


def test_a_frame_with_nan_probabilities_does_not_count() -> None:
    assert spans(events(recording([0.9, 0.9, float("nan"), 0.9]), PLAIN)) == [(0, 3)]


def test_only_findings_with_an_operating_point_make_events() -> None:
    for label in ("normal", "pylorus", "polyp"):
        assert events(recording([0.99] * 30, label=label)) == []


def test_events_are_ordered_by_start_then_label() -> None:
    frames = recording([0.9] * 5 + [0] * 30 + [0.9] * 5)
    both = [
        dataclasses.replace(frame, probabilities=np.array([0, p, p, 0, 0], np.float32))
        for frame in frames
        if frame.probabilities is not None
        for p in [frame.probabilities[1]]
    ]
    found = events(both, PLAIN)
    assert [(event.id, event.start_index, event.label) for event in found] == [
        (1, 0, "blood"),
        (2, 0, "ulcer"),
        (3, 35, "blood"),
        (4, 35, "ulcer"),
    ]


def test_the_peak_is_the_highest_single_frame_and_the_first_of_equals() -> None:
    (event,) = events(recording([0.6, 0.6, 0.9, 0.6, 0.9, 0.6]))
    assert event.peak_index == 2


def test_playback_files_are_smoothed_in_capture_time() -> None:
    # At 30 frames a second, 12 frames between the runs are 13/30 s of the file. At the assumed two captures a second
    # they are 6.5 s of the examination, more than max_gap_s; at three captures a second they are 4.3 s.
    frames = recording([0.9] * 4 + [0] * 12 + [0.9] * 4, step_s=1 / 30)
    found = find_events(frames, PLAIN, median_distance_s=1 / 30, time_kind="playback")
    assert spans(found) == [(0, 3), (16, 19)]
    assert found[0].end_s == pytest.approx(4 / 30)  # container time
    assert spans(
        find_events(frames, PLAIN, median_distance_s=1 / 30, time_kind="playback", capture_fps=3.0)
    ) == [(0, 19)]


def test_capture_scale() -> None:
    rule = EventParameters(assumed_capture_fps=2.0)
    assert capture_scale(rule, median_distance_s=0.5, time_kind="capture", capture_fps=None) == 1.0
    assert capture_scale(rule, median_distance_s=0.5, time_kind="capture", capture_fps=4.0) == 0.5
    assert capture_scale(rule, median_distance_s=0.04, time_kind="playback", capture_fps=None) == 12.5
    assert capture_scale(rule, median_distance_s=None, time_kind="playback", capture_fps=None) == 1.0


def test_median_frame_distance() -> None:
    assert median_frame_distance([]) is None
    assert median_frame_distance(recording([0.1])) is None
    assert median_frame_distance(recording([0.1] * 3, times=[0, 0.4, 7.0])) == pytest.approx(3.5)


def test_events_of_a_label_do_not_overlap_on_random_recordings() -> None:
    generator = np.random.default_rng(7)
    for _ in range(30):
        count = int(generator.integers(2, 400))
        times = np.cumsum(generator.choice([0.2, 0.5, 0.5, 4.9, 5.2], count)).tolist()
        walk = np.clip(0.4 + np.cumsum(generator.normal(0, 0.15, count)), 0, 1)
        values = [None if generator.random() < 0.1 else float(value) for value in walk]
        frames = recording(values, times=times)
        found = events(frames)
        for event in found:
            inside = [
                f for f in frames[event.start_index : event.end_index + 1] if f.probabilities is not None
            ]
            assert event.frames == len(inside) >= SPEC.events.min_frames
            assert event.start_s <= event.peak_s < event.end_s
            gaps = np.diff([f.time_s for f in inside])
            assert gaps.max() <= SPEC.events.max_gap_s + 1e-3  # the slack of the module
            assert event.peak_p == max(float(f.probabilities[1]) for f in inside)
        for before, after in pairwise(found):
            assert before.end_s <= after.start_s


def test_similar_events_within_merge_s_are_merged() -> None:
    gap = [0.0] * 20  # 10.5 s from the last frame before to the first after, more than max_gap_s
    frames = recording([0.9] * 6 + gap + [0.9] * 6)
    assert spans(events(frames, PLAIN)) == [(0, 5), (26, 31)]
    assert spans(events(frames, with_events(smoothing_s=0.0, merge_s=10.0))) == [(0, 5), (26, 31)]
    assert spans(events(frames, with_events(smoothing_s=0.0, merge_s=10.5))) == [(0, 31)]

    def change_second_run(frame: FrameRecord) -> FrameRecord:
        if frame.index < 26 or frame.probabilities is None:
            return frame
        # .6 ulcer and .4 polyp, after a first run of .9 ulcer: they have .6 in common, less than .8.
        return dataclasses.replace(frame, probabilities=np.array([0, 0.6, 0, 0, 0.4], np.float32))

    other = [change_second_run(frame) for frame in frames]
    assert spans(events(other, with_events(smoothing_s=0.0, merge_s=10.5))) == [(0, 5), (26, 31)]
    # A gap in the recording divides even similar events.
    holed = recording([0.9] * 12, times=[*(i * 0.5 for i in range(6)), *(8.5 + i * 0.5 for i in range(6))])
    assert spans(events(holed, with_events(smoothing_s=0.0, merge_s=60.0))) == [(0, 5), (6, 11)]


def test_landmarks_have_events_if_their_role_is_given() -> None:
    found = find_events(
        recording([0.9] * 9, label="pylorus"),
        SPEC,
        median_distance_s=STEP_S,
        time_kind="capture",
        role="landmark",
    )
    assert [(event.label, event.role) for event in found] == [("pylorus", "landmark")]


def test_half_a_window_is_not_rounded_to_seconds() -> None:
    """A window of 3 s reaches 1.5 s to either side: three frames at two a second."""
    values = np.array([0.0, 0, 0, 1, 0, 0, 0])
    smoothed = smooth(values, np.arange(7) * STEP_S, window_s=3.0, max_gap_s=5.0)
    assert smoothed.tolist() == pytest.approx([1 / 4, 1 / 5, 1 / 6, 1 / 7, 1 / 6, 1 / 5, 1 / 4], abs=1e-6)


def test_an_event_before_a_long_gap_of_a_playback_file_ends_one_frame_on() -> None:
    """At 30 frames a second and an assumed capture rate of 2, 5 s of capture time are a third of a second."""
    times = [index / 30 for index in range(8)] + [2.0 + index / 30 for index in range(8)]
    frames = recording([0.9] * 8 + [0.0] * 8, times=times)
    (event,) = find_events(frames, PLAIN, median_distance_s=1 / 30, time_kind="playback")
    assert event.end_s == pytest.approx(8 / 30)
    near = recording([0.9] * 8 + [0.0] * 8, times=[*times[:8], *(0.5 + index / 30 for index in range(8))])
    (event,) = find_events(near, PLAIN, median_distance_s=1 / 30, time_kind="playback")
    # .27 s of the file are 4 s of capture time, within max_gap_s: the next frame ends the event.
    assert event.end_s == pytest.approx(0.5)


def test_the_last_frame_of_a_run_counts_when_runs_are_compared() -> None:
    """The runs look alike only if every frame of the first is in its mean."""
    spec = with_events(smoothing_s=0.0, merge_s=20.0, min_frames=1)
    frames = recording([0.5, 0.95] + [0.0] * 12 + [0.9])
    values = [0.2, 0.1, *[0.0] * 12, 0.1]
    for frame, normal in zip(frames, values, strict=True):
        frame.probabilities[0] = normal
    # Means: .725 ulcer and .15 normal; then .9 and .1: .825 in common. Without frame 1 the first is .5 and .2.
    assert spans(events(frames, spec)) == [(0, 14)]
