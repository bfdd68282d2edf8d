"""Peak frames: kept while a recording is read, or decoded again at the end, with the same image either way."""

from __future__ import annotations

import dataclasses
from array import array
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from unittest import mock

import damage
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from red_model import write_exam, write_red_model
from tiny_model import tiny_spec

from capsule_edge.runtime import Reader
from capsule_edge.runtime.events import (
    EventStream,
    PeakFrames,
    find_candidates,
    find_events,
    peak_frames,
)
from capsule_edge.runtime.events.peak_frames import unpack
from capsule_edge.runtime.inference import ModelSpec, OperatingPoint
from capsule_edge.runtime.pipeline import Callbacks, Plan, illustrate, thumbnails
from capsule_edge.runtime.preprocessing import preprocess_planes
from capsule_edge.runtime.recording import Container, Frame, decode, ffmpeg, scan, split
from capsule_edge.runtime.recording.decoder import fetch_images
from capsule_edge.runtime.study import STATUSES, Event, FrameTable

SPEC = tiny_spec(
    ("normal", "ulcer", "polyp"),
    operating_points={"ulcer": OperatingPoint(0.5), "polyp": OperatingPoint(0.3)},
)


@pytest.fixture(scope="module")
def red(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    with Reader.open(write_red_model(tmp_path_factory.mktemp("model") / "red.onnx")) as opened:
        yield opened


KINDS = {
    "h264.mp4": {"options": {"bf": "3"}},
    "open_gop.mp4": {"options": {"bf": "3", "x264-params": "open-gop=1"}},
    "h264.avi": {"options": {"bf": "3"}},
    "h264.ts": {"options": {"bf": "2"}},
    "mpeg4_b.avi": {"codec": "mpeg4", "options": {"bf": "2"}},
    "mjpeg.avi": {"codec": "mjpeg", "pixels": "yuvj420p"},
    "hevc.mp4": {"codec": "libx265", "options": {"x265-params": "log-level=none:pools=none"}},
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"lag-in-frames": "12", "cpu-used": "8"}},
}


@pytest.mark.parametrize("kind", KINDS)
def test_frames_decoded_again_are_the_same(kind: str, tmp_path: Path, monkeypatch) -> None:
    container = scan(damage.encode(tmp_path / kind, **KINDS[kind]))
    whole = {frame.index: frame for frame in decode(container)}
    images = []
    real = ffmpeg._match
    monkeypatch.setattr(ffmpeg, "_match", lambda *args: images.extend(found := real(*args)) or found)
    for wanted in ([0], [59], [3, 30, 31], [13], [25, 47]):
        images.clear()
        found = dict(fetch_images(container, wanted))
        assert sorted(found) == wanted
        for index, image in found.items():
            assert image.pts == whole[index].image.pts
            np.testing.assert_array_equal(image.to_ndarray(), whole[index].image.to_ndarray())
        # A GOP has 12 frames. For a frame that builds on the GOP before, two GOPs are decoded.
        assert len(wanted) <= len(images)
        assert len(images) <= 2 * 12 * len(wanted) or kind == "vp9.webm"


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The indices of the frames that are decoded again for the report."""
    found: list[int] = []
    fetch = thumbnails.fetch

    def watched(container: Container, wanted: Collection[int]) -> Iterator[Frame]:
        found.extend(wanted)
        return fetch(container, wanted)

    monkeypatch.setattr(thumbnails, "fetch", watched)
    return found


@pytest.mark.quick
def test_peaks_decoded_again_have_the_same_image_and_map(red: Reader, tmp_path: Path) -> None:
    exam = write_exam(tmp_path / "exam.mp4", red=[*range(4, 10), *range(30, 40)])
    kept = red.read(exam)
    assert len(kept.events) == 2
    again = illustrate(scan(exam), kept.events, red._engine(1), kept.source.field_of_view)
    for event in kept.events:
        np.testing.assert_array_equal(kept.thumbnails[event.id], again[0][event.id])
        # The kept map comes from a batch, the other from a batch of one frame.
        np.testing.assert_array_equal(kept.activations[event.id], again[1][event.id])


# By name: the red frames, and the number of events.
EXAMS = {
    "two events": ([*range(4, 10), *range(30, 40)], 2),
    "one to the end": (range(5, 60), 1),
    "merged over a gap": ([*range(10, 20), *range(26, 36)], 1),
    "one red frame is no event": ([*range(10, 20), 40], 1),
}


@pytest.mark.parametrize("batch", [1, 5, 16])
@pytest.mark.parametrize("case", EXAMS)
def test_peaks_are_packed_once_and_not_decoded_again(
    case: str, batch: int, tmp_path: Path, monkeypatch, fetched: list[int]
) -> None:
    red_frames, events = EXAMS[case]
    exam = write_exam(tmp_path / "exam.mp4", red=red_frames)
    packed = mock.Mock(side_effect=peak_frames.pack)
    monkeypatch.setattr(peak_frames, "pack", packed)
    plan = Plan(2, batch)
    with Reader.open(write_red_model(tmp_path / "red.onnx"), plan=plan) as reader:
        study = reader.read(exam)
    assert len(study.events) == len(study.thumbnails) == packed.call_count == events
    assert fetched == []


@pytest.mark.parametrize("options", [{"every": 3}, {"gate": 0.5}, {"start_s": 2.5, "every": 2}])
def test_with_skipped_frames_peaks_decoded_again_are_the_same(
    options: dict, red: Reader, tmp_path: Path, monkeypatch, fetched: list[int]
) -> None:
    exam = write_exam(tmp_path / "exam.mp4", red=[*range(4, 16), *range(36, 60)])
    study = red.read(exam, **options)
    assert len(study.events) == 2
    assert fetched == []
    monkeypatch.setattr(peak_frames, "WAITING", 0)
    again = red.read(exam, **options)
    assert sorted(fetched) == [event.peak_index for event in study.events]
    for event in study.events:
        np.testing.assert_array_equal(study.thumbnails[event.id], again.thumbnails[event.id])
        np.testing.assert_array_equal(study.activations[event.id], again.activations[event.id])


@pytest.mark.parametrize(("limit", "value", "absent"), [("WAITING", 0, 2), ("MOST", 1, 1)])
def test_peak_frames_beyond_the_limits_are_decoded_again(
    limit: str, value: int, absent: int, red: Reader, tmp_path: Path, monkeypatch, fetched: list[int]
) -> None:
    exam = write_exam(tmp_path / "exam.mp4", red=[*range(4, 10), *range(30, 40)])
    whole = red.read(exam)
    monkeypatch.setattr(peak_frames, limit, value)
    limited = red.read(exam)
    assert len(fetched) == absent
    for event in whole.events:
        np.testing.assert_array_equal(whole.thumbnails[event.id], limited.thumbnails[event.id])


# The tests below run without a recording and a model, on given probabilities. The image of a frame has 2 x 2 pixels
# that encode its index; its map encodes its index and its label.


def make_frame(index: int) -> Frame:
    return Frame(index, np.full((2, 2, 3), (index % 256, index // 256, 7), np.uint8))


def make_features(index: int) -> np.ndarray:
    return np.float32([[[index, index + 0.25, index + 0.5]]])


class WatchedPeakFrames(PeakFrames):
    """Peak frames that record how many bytes waited at most."""

    most = 0

    def add(self, *frame) -> None:
        super().add(*frame)
        self.most = max(self.most, self.waiting_bytes)


def read_answers(
    answers: np.ndarray, spec: ModelSpec, *, batch: int, sound: Sequence[bool] = (), gap_s: float = 0.5
) -> tuple[WatchedPeakFrames, list[Event]]:
    """Pass frames with these probabilities of the findings through the callbacks, as the reader does.

    Frames that are not ``sound`` are corrupt. Returns the peak frames and the events.
    """
    count = len(answers)
    probabilities = np.column_stack((1 - answers.max(axis=1), answers)).astype(np.float32)
    times_s = array("d", (gap_s * index for index in range(count)))
    unread = np.full(count, STATUSES.index("unread"), np.int8)
    table = FrameTable(count=count, labels=3, pts=array("q", range(count)), times_s=times_s, statuses=unread)
    timing = {"median_distance_s": gap_s, "time_kind": "capture"}
    peaks, reported = WatchedPeakFrames(spec), []
    stream = EventStream(spec, **timing)
    callbacks = Callbacks(table, on_frame=None, on_event=reported.append, stream=stream, peaks=peaks)
    answered = [index for index in range(count) if not len(sound) or sound[index]]
    for begin in range(0, len(answered), batch):
        indices = answered[begin : begin + batch]
        for index in range(answered[begin - 1] + 1 if begin else 0, indices[-1] + 1):
            if index in indices:
                table.settle(index, "classified", probabilities=probabilities[index])
            else:
                table.settle(index, "corrupt", detail="damaged")
        maps = np.stack([make_features(index) for index in indices])
        frames = [make_frame(index) for index in indices]
        for row, candidate in find_candidates(probabilities[indices], maps, frames, spec).items():
            peaks.add(indices[row], probabilities[indices[row]], candidate, None)
        callbacks.settle(indices[-1] + 1)
    callbacks.finish()
    events = find_events(table, spec, **timing)
    assert callbacks.events == events
    assert {event.id for event in reported} <= {0}
    assert len(reported) == len(events)
    return peaks, events


def is_kept(peaks: PeakFrames, event: Event, spec: ModelSpec) -> bool:
    """Return whether the event's peak frame was kept; assert that its image and map are the right ones."""
    column = spec.keys.index(event.label)
    found = peaks.find(column, event.peak_index)
    if found is None:
        return False
    large = peak_frames.enlarge(spec.input)
    expected = preprocess_planes(split(make_frame(event.peak_index).image), large, None)
    np.testing.assert_array_equal(unpack(found[0]), expected)
    np.testing.assert_array_equal(found[1], make_features(event.peak_index)[..., column])
    return True


# Runs of equal answers with few values, so that thresholds, ties and events of several runs are frequent.
run = st.tuples(
    st.integers(1, 7),
    st.sampled_from([0.0, 0.0, 0.29, 0.31, 0.5, 0.6, 0.7, 1.0]),
    st.sampled_from([0.0, 0.0, 0.18, 0.3, 0.4, 0.9]),
)
answers_of_runs = st.lists(run, min_size=1, max_size=30).map(
    lambda steps: np.array([values for count, *values in steps for _ in range(count)])
)
rules = st.builds(
    lambda smoothing_s, merge_s, min_frames, max_gap_s: dataclasses.replace(
        SPEC,
        events=dataclasses.replace(
            SPEC.events,
            smoothing_s=smoothing_s,
            merge_s=merge_s,
            min_frames=min_frames,
            max_gap_s=max_gap_s,
        ),
    ),
    st.sampled_from([0.0, 2.0, 6.0]),
    st.sampled_from([0.0, 12.0]),
    st.integers(1, 5),
    st.sampled_from([1.0, 5.0]),
)


# Small images, which are packed faster.
TINY = mock.patch.object(peak_frames, "_SIDE", 8)


@settings(max_examples=120, deadline=None)
@given(answers=answers_of_runs, spec=rules, seed=st.integers(0, 9))
def test_with_batches_of_one_frame_every_peak_at_or_above_its_threshold_is_kept(
    answers: np.ndarray, spec: ModelSpec, seed: int
) -> None:
    sound = np.random.default_rng(seed).random(len(answers)) < 0.8
    sound[0] = True
    with TINY:
        peaks, events = read_answers(answers, spec, batch=1, sound=sound)
        for event in events:
            threshold = spec.operating_points[event.label].threshold
            assert is_kept(peaks, event, spec) or round(event.peak_p, 6) < threshold


@settings(max_examples=80, deadline=None)
@given(answers=answers_of_runs, spec=rules, batch=st.integers(2, 40))
def test_with_larger_batches_only_peaks_are_kept(answers: np.ndarray, spec: ModelSpec, batch: int) -> None:
    with TINY:
        peaks, events = read_answers(answers, spec, batch=batch)
        kept = sum(is_kept(peaks, event, spec) for event in events)
    assert kept == sum(map(len, peaks._kept.values()))


@pytest.mark.quick
def test_candidates_among_consecutive_frames() -> None:
    """A smoothing window reaches 2 frames on, so an event may begin with any of the first three frames."""
    answers = np.zeros((12, 3), np.float32)
    answers[2:10, 1] = 0.9, 0.6, 0.7, 0.5, 0.8, 0.8, 0.6, 0.5
    answers[4, 2] = 0.3
    maps = np.zeros((12, 1, 1, 3), np.float32)
    frames = [make_frame(index) for index in range(12)]
    # Frame 2 is the highest of all, 6 the highest behind it (the first of two), and 4 that of the other label.
    assert list(find_candidates(answers, maps, frames, SPEC)) == [2, 4, 6]
    every_second = [make_frame(2 * index) for index in range(12)]
    assert list(find_candidates(answers, maps, every_second, SPEC)) == list(range(2, 10))
    answers[6, 0] = np.nan
    assert list(find_candidates(answers, maps, frames, SPEC)) == [2, 4, 7, 8, 9]


def test_few_frames_wait_for_the_end_of_a_long_event() -> None:
    """The event rises to its middle, so each frame of the first half is the highest so far."""
    size = make_frame(0).image.nbytes + make_features(0).nbytes
    up = np.linspace(0.5, 1, 300)
    values = np.concatenate((up, up[::-1]))
    with TINY:
        peaks, events = read_answers(np.column_stack((values, 0 * values)), SPEC, batch=16)
        assert [is_kept(peaks, event, SPEC) for event in events] == [True]
    # The highest so far; the highest of each of the last two batches, whose smoothed values are not final; and two
    # at their edges.
    assert peaks.most <= 5 * size


def test_the_bytes_of_waiting_frames_are_bounded(monkeypatch) -> None:
    size = make_frame(0).image.nbytes + make_features(0).nbytes
    monkeypatch.setattr(peak_frames, "WAITING", 3 * size)
    rng = np.random.default_rng(0)
    with TINY:
        peaks, events = read_answers(rng.choice([0, 0.5, 0.9], (2000, 2)), SPEC, batch=16)
        kept = sum(is_kept(peaks, event, SPEC) for event in events)
    assert peaks.most == 3 * size
    assert 0 < kept < len(events)


@pytest.mark.quick
def test_a_peak_frame_of_two_labels_is_packed_once(monkeypatch) -> None:
    answers = np.zeros((60, 2))
    answers[20:26] = 0.5, 0.4
    answers[23] = 0.6, 0.4
    answers[20:23, 1] = 0.3
    packed = mock.Mock(side_effect=peak_frames.pack)
    monkeypatch.setattr(peak_frames, "pack", packed)
    with TINY:
        peaks, events = read_answers(answers, SPEC, batch=16)
        assert [is_kept(peaks, event, SPEC) for event in events] == [True, True]
    assert [event.peak_index for event in events] == [23, 23]
    assert packed.call_count == 1


def test_the_kept_peak_frames_are_shared_among_labels(monkeypatch) -> None:
    """Twelve events of one label do not displace the two of another."""
    answers = np.zeros((600, 2))
    for place in range(12):
        answers[40 * place : 40 * place + 5, 0] = 0.6 + place / 100
    answers[20:25, 1] = answers[300:305, 1] = 0.4
    monkeypatch.setattr(peak_frames, "MOST", 5)
    with TINY:
        peaks, events = read_answers(answers, SPEC, batch=16)
        kept = [(event.label, round(event.peak_p, 2)) for event in events if is_kept(peaks, event, SPEC)]
    assert sorted(kept) == [("polyp", 0.4), ("polyp", 0.4), ("ulcer", 0.69), ("ulcer", 0.7), ("ulcer", 0.71)]


def test_peaks_by_the_users_thresholds_are_kept(tmp_path: Path, fetched: list[int]) -> None:
    with Reader.open(write_red_model(tmp_path / "red.onnx")) as reader:
        # In a frame without red, bleeding has the probability 0.02.
        reader.use_thresholds({"bleeding": 0.01})
        study = reader.read(write_exam(tmp_path / "exam.mp4", red=()))
    assert [event.peak_p < 0.1 for event in study.events] == [True]
    assert sorted(study.thumbnails) == [1]
    assert fetched == []
