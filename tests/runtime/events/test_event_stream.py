"""The event stream finds the same events as a search over the whole recording, for frames in groups of any size."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_model import tiny_spec

from capsule_edge.runtime.events import (
    EventStream,
    capture_scale,
    find_events,
    find_runs,
    median_frame_distance,
    smooth,
)
from capsule_edge.runtime.events import stream as event_stream
from capsule_edge.runtime.events.rules import Timeline
from capsule_edge.runtime.inference import ModelSpec, OperatingPoint
from capsule_edge.runtime.study import Event, FrameRecord, columns

SPEC = tiny_spec(
    ("normal", "ulcer", "polyp"),
    operating_points={"ulcer": OperatingPoint(0.5), "polyp": OperatingPoint(0.3)},
)


def streamed(frames: Sequence[FrameRecord], spec: ModelSpec, sizes: Sequence[int]) -> list[Event]:
    """Return the events of a stream that gets the frames in groups of these sizes, in turn."""
    stream = EventStream(spec, median_distance_s=median_frame_distance(frames), time_kind="capture")
    found, at, turn = [], 0, 0
    while at < len(frames):
        size = sizes[turn % len(sizes)]
        found += stream.add(frames[at : at + size])
        at, turn = at + size, turn + 1
    return found + stream.finish()


def find_in_whole(frames: Sequence[FrameRecord], spec: ModelSpec) -> list[Event]:
    """Find the events by the rules with all frames at once, without the stream."""
    every = columns(frames)
    used = every.answered
    if not used.any():
        return []
    distance_s = median_frame_distance(frames)
    scale = capture_scale(spec.events, median_distance_s=distance_s, time_kind="capture", capture_fps=None)
    timeline = Timeline(
        every.indices[used],
        every.times_s[used],
        every.probabilities[used].astype(np.float64),
        every.times_s[every.timed],
        scale,
        distance_s,
    )
    capture_s = timeline.times_s * scale
    rule = spec.events
    found = []
    for column in spec.index_of("finding"):
        label = spec.labels[column]
        if (point := spec.operating_points.get(label.key)) is None:
            continue
        values = timeline.probabilities[:, column]
        smoothed = smooth(values, capture_s, window_s=rule.smoothing_s, max_gap_s=rule.max_gap_s)
        runs = find_runs(smoothed, timeline.probabilities, capture_s, threshold=point.threshold, rule=rule)
        found += [timeline.event(label, column, first, last, rule) for first, last in runs]
    return by_start(found)


def by_start(events: Sequence[Event]) -> list[Event]:
    return sorted(events, key=lambda event: (event.start_s, event.label, event.start_index))


def make_frames(steps: Sequence[tuple[float, float, float, bool]]) -> list[FrameRecord]:
    """Make frames of (seconds since the last frame, two probabilities, whether the frame is sound)."""
    frames, time_s = [], 0.0
    for index, (gap_s, ulcer, polyp, sound) in enumerate(steps):
        time_s += gap_s if index else 0.0
        values = np.array([1 - max(ulcer, polyp), ulcer, polyp], np.float32) if sound else None
        status = "classified" if sound else "corrupt"
        frames.append(FrameRecord(index, status, index, time_s, probabilities=values))
    return frames


# Few values, so that thresholds, ties and similar runs are frequent; gaps around max_gap_s and merge_s.
step = st.tuples(
    st.sampled_from([0.5, 0.5, 0.5, 0.0, 0.25, 4.9, 5.0, 5.1, 30.0]),
    st.sampled_from([0.0, 0.0, 0.29, 0.31, 0.5, 0.7, 1.0]),
    st.sampled_from([0.0, 0.0, 0.0, 0.18, 0.3, 0.9]),
    st.sampled_from([True, True, True, True, False]),
)


@settings(max_examples=150, deadline=None)
@given(
    steps=st.lists(step, min_size=1, max_size=120),
    sizes=st.lists(st.integers(1, 20), min_size=1, max_size=4),
    smoothing_s=st.sampled_from([0.0, 2.0, 9.0, 30.0]),
    merge_s=st.sampled_from([0.0, 20.0]),
    min_frames=st.integers(1, 5),
)
def test_the_stream_finds_the_events_of_the_whole_recording(
    steps: list[tuple[float, float, float, bool]],
    sizes: list[int],
    smoothing_s: float,
    merge_s: float,
    min_frames: int,
) -> None:
    rule = dataclasses.replace(
        SPEC.events, smoothing_s=smoothing_s, merge_s=merge_s, min_frames=min_frames, max_gap_s=5.0
    )
    spec = dataclasses.replace(SPEC, events=rule)
    frames = make_frames(steps)
    expected = find_in_whole(frames, spec)
    assert by_start(streamed(frames, spec, sizes)) == expected
    distance_s = median_frame_distance(frames)
    found = find_events(frames, spec, median_distance_s=distance_s, time_kind="capture")
    assert [dataclasses.replace(event, id=0) for event in found] == expected
    assert [event.id for event in found] == list(range(1, len(found) + 1))


@pytest.mark.quick
def test_an_event_is_reported_when_it_closes() -> None:
    """0.5 s a frame; ulcer from 10 s to 14.5 s. Frames up to 5 s later may join; a window of 2 s reaches 1 s on."""
    frames = make_frames([(0.5, 1.0 if 20 <= index < 30 else 0.0, 0.0, True) for index in range(200)])
    stream = EventStream(SPEC, median_distance_s=0.5, time_kind="capture")
    reported = {frame.index: event for frame in frames for event in stream.add([frame])}
    assert stream.finish() == []
    ((at, event),) = reported.items()
    assert [event] == find_in_whole(frames, SPEC)
    # The last frame of the event is 30: 2 of 5 frames are ulcer, .4, above .3. Frame 40, 5 s later, could still join.
    # The smoothed value of frame 41 is final after frame 43 and one later frame. The last min_frames are held back.
    assert 41 <= at <= 30 + 10 + 3 + 2 + SPEC.events.min_frames + 1


@pytest.mark.quick
def test_an_event_closes_while_another_of_its_label_is_open() -> None:
    """The second event begins 30 s later and lasts to the end."""
    frames = make_frames([(0.5, 1.0 if 20 <= i < 30 or i >= 90 else 0.0, 0.0, True) for i in range(400)])
    stream = EventStream(SPEC, median_distance_s=0.5, time_kind="capture")
    assert [event.start_index for event in stream.add(frames[:150])] == [20]
    assert stream.add(frames[150:]) == []
    assert [event.start_index for event in stream.finish()] == [90]


@pytest.mark.parametrize("seed", range(10))
def test_dropping_settled_frames_changes_no_event(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stretches of equal frames with some gaps. Each frame is dropped as soon as no event needs it."""
    monkeypatch.setattr(event_stream, "_ROWS", 1)
    rng = np.random.default_rng(seed)
    steps = []
    for _ in range(150):
        values = rng.choice([0, 0, 0, 0.31, 0.5, 1]), rng.choice([0, 0, 0, 0.18, 0.3, 0.7])
        for _ in range(rng.integers(1, 12)):
            steps.append((rng.choice([0.5, 0.5, 0.5, 0.25, 5.1]), *values, rng.random() < 0.9))
    frames = make_frames(steps)
    spec = dataclasses.replace(SPEC, events=dataclasses.replace(SPEC.events, merge_s=20 * (seed % 2)))
    with mock.patch.object(
        event_stream._Rows, "drop", autospec=True, side_effect=event_stream._Rows.drop
    ) as drop:
        found = streamed(frames, spec, [1])
    assert drop.call_count > 100
    assert by_start(found) == find_in_whole(frames, spec)


def test_only_frames_that_an_event_may_need_are_held() -> None:
    """An event of 50 frames in every 500, then one that lasts to the end."""
    frames = make_frames([(0.5, 1.0 * (i % 500 < 50 or i > 9000), 0.0, True) for i in range(12000)])
    stream = EventStream(SPEC, median_distance_s=0.5, time_kind="capture")
    held = []
    for begin in range(0, len(frames), 16):
        stream.add(frames[begin : begin + 16])
        held.append(len(stream._indices.filled))
    assert max(held[: 9000 // 16]) < 2 * event_stream._ROWS
    assert held[-1] > 2900


@pytest.mark.parametrize("frames", [[], make_frames([(0.5, 1.0, 0.0, False)] * 5)])
def test_frames_without_an_answer_make_no_event(frames: list[FrameRecord]) -> None:
    stream = EventStream(SPEC, median_distance_s=None, time_kind="capture")
    assert stream.add(frames) == []
    assert stream.finish() == []
