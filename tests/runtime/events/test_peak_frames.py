"""Pictures of peaks: kept while a recording is read, or decoded again with what they build on, and the same."""

from __future__ import annotations

import dataclasses
from array import array
from collections.abc import Iterator, Sequence
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
from capsule_edge.runtime.recording import Frame, decode, ffmpeg, scan, split
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
def test_pictures_fetched_again_are_the_same(kind: str, tmp_path: Path, monkeypatch) -> None:
    container = scan(damage.encode(tmp_path / kind, **KINDS[kind]))
    whole = {picture.index: picture for picture in decode(container)}
    sent = []
    real = ffmpeg._match
    monkeypatch.setattr(ffmpeg, "_match", lambda *args: sent.extend(found := real(*args)) or found)
    for wanted in ([0], [59], [3, 30, 31], [13], [25, 47]):
        sent.clear()
        found = dict(fetch_images(container, wanted))
        assert sorted(found) == wanted
        for index, frame in found.items():
            assert frame.pts == whole[index].image.pts
            np.testing.assert_array_equal(frame.to_ndarray(), whole[index].image.to_ndarray())
        # A group has 12 pictures; one that builds on the group before costs two.
        assert len(sent) <= 2 * 12 * len(wanted) or kind == "vp9.webm"


def refuse(*_args: object) -> None:
    raise AssertionError("decoded again")


def test_peaks_are_the_same_when_decoded_again(red: Reader, tmp_path: Path) -> None:
    exam = write_exam(tmp_path / "exam.mp4", red=[*range(4, 10), *range(30, 40)])
    kept = red.read(exam)
    assert len(kept.events) == 2
    again = illustrate(scan(exam), kept.events, red._engine(1), kept.source.field_of_view)
    for event in kept.events:
        np.testing.assert_array_equal(kept.thumbnails[event.id], again[0][event.id])
        # The map is of the batch's own inference, which has the same answer for a frame in any batch.
        np.testing.assert_array_equal(kept.activations[event.id], again[1][event.id])


SIGHTS = {
    "two events": ([*range(4, 10), *range(30, 40)], 2),
    "one to the end": (range(5, 60), 1),
    "merged over a gap": ([*range(10, 20), *range(26, 36)], 1),
    "too short to be one": ([*range(10, 20), 40], 1),
}


@pytest.mark.parametrize("batch", [1, 5, 16])
@pytest.mark.parametrize("case", SIGHTS)
def test_peaks_are_packed_once_and_not_decoded_again(
    case: str, batch: int, tmp_path: Path, monkeypatch
) -> None:
    shown, events = SIGHTS[case]
    exam = write_exam(tmp_path / "exam.mp4", red=shown)
    packed = mock.Mock(side_effect=peak_frames.pack)
    monkeypatch.setattr(peak_frames, "pack", packed)
    monkeypatch.setattr(thumbnails, "fetch", refuse)
    plan = Plan(2, batch)
    with Reader.open(write_red_model(tmp_path / "red.onnx"), plan=plan) as reader:
        study = reader.read(exam)
    assert len(study.events) == len(study.thumbnails) == packed.call_count == events


@pytest.mark.parametrize("options", [{"every": 3}, {"gate": 0.5}, {"start_s": 2.5, "every": 2}])
def test_frames_that_were_passed_over_change_no_picture(
    options: dict, red: Reader, tmp_path: Path, monkeypatch
) -> None:
    exam = write_exam(tmp_path / "exam.mp4", red=[*range(4, 16), *range(36, 60)])
    study = red.read(exam, **options)
    assert len(study.events) == 2
    monkeypatch.setattr(peak_frames, "WAITING", 0)
    again = red.read(exam, **options)
    for event in study.events:
        np.testing.assert_array_equal(study.thumbnails[event.id], again.thumbnails[event.id])
        np.testing.assert_array_equal(study.activations[event.id], again.activations[event.id])


@pytest.mark.parametrize(("name", "most", "absent"), [("WAITING", 0, 2), ("MOST", 1, 1)])
def test_what_does_not_fit_is_decoded_again(
    name: str, most: int, absent: int, red: Reader, tmp_path: Path, monkeypatch
) -> None:
    exam = write_exam(tmp_path / "exam.mp4", red=[*range(4, 10), *range(30, 40)])
    whole = red.read(exam)
    monkeypatch.setattr(peak_frames, name, most)
    fetched = mock.Mock(side_effect=thumbnails.fetch)
    monkeypatch.setattr(thumbnails, "fetch", fetched)
    tight = red.read(exam)
    assert [len(call.args[1]) for call in fetched.call_args_list] == [absent]
    for event in whole.events:
        np.testing.assert_array_equal(whole.thumbnails[event.id], tight.thumbnails[event.id])


# On probabilities alone: a picture is 2 x 2 pixels that tell its index, a map its index and its label.


def picture_of(index: int) -> Frame:
    return Frame(index, np.full((2, 2, 3), (index % 256, index // 256, 7), np.uint8))


def features_of(index: int) -> np.ndarray:
    return np.float32([[[index, index + 0.25, index + 0.5]]])


class Held(PeakFrames):
    """Notes the bytes that waited, at most."""

    most = 0

    def add(self, *frame) -> None:
        super().add(*frame)
        self.most = max(self.most, self.waiting_bytes)


def follow(
    answers: np.ndarray, spec: ModelSpec, *, batch: int, sound: Sequence[bool] = (), gap_s: float = 0.5
) -> tuple[Held, list[Event]]:
    """Read frames of these probabilities of the findings; those that are not ``sound`` have no picture."""
    count = len(answers)
    probabilities = np.column_stack((1 - answers.max(axis=1), answers)).astype(np.float32)
    times_s = array("d", (gap_s * index for index in range(count)))
    unread = np.full(count, STATUSES.index("unread"), np.int8)
    table = FrameTable(count=count, labels=3, pts=array("q", range(count)), times_s=times_s, statuses=unread)
    timing = {"median_distance_s": gap_s, "time_kind": "capture"}
    held, told = Held(spec), []
    stream = EventStream(spec, **timing)
    callbacks = Callbacks(table, on_frame=None, on_event=told.append, stream=stream, peaks=held)
    there = [index for index in range(count) if not len(sound) or sound[index]]
    for begin in range(0, len(there), batch):
        indices = there[begin : begin + batch]
        for index in range(there[begin - 1] + 1 if begin else 0, indices[-1] + 1):
            if index in indices:
                table.settle(index, "classified", probabilities=probabilities[index])
            else:
                table.settle(index, "corrupt", detail="damaged")
        maps = np.stack([features_of(index) for index in indices])
        pictures = [picture_of(index) for index in indices]
        for row, sight in find_candidates(probabilities[indices], maps, pictures, spec).items():
            held.add(indices[row], probabilities[indices[row]], sight, None)
        callbacks.settle(indices[-1] + 1)
    callbacks.finish()
    events = find_events(table, spec, **timing)
    assert callbacks.events == events
    assert {event.id for event in told} <= {0}
    assert len(told) == len(events)
    return held, events


def kept_of(held: PeakFrames, event: Event, spec: ModelSpec) -> bool:
    """Whether the peak's picture and map are there; they are then the right ones."""
    column = spec.keys.index(event.label)
    found = held.find(column, event.peak_index)
    if found is None:
        return False
    large = peak_frames.enlarge(spec.input)
    expected = preprocess_planes(split(picture_of(event.peak_index).image), large, None)
    np.testing.assert_array_equal(unpack(found[0]), expected)
    np.testing.assert_array_equal(found[1], features_of(event.peak_index)[..., column])
    return True


# Stretches of equal answers, of few values, so that thresholds, ties and several runs of an event are met often.
stretch = st.tuples(
    st.integers(1, 7),
    st.sampled_from([0.0, 0.0, 0.29, 0.31, 0.5, 0.6, 0.7, 1.0]),
    st.sampled_from([0.0, 0.0, 0.18, 0.3, 0.4, 0.9]),
)
stretches = st.lists(stretch, min_size=1, max_size=30).map(
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


TINY = mock.patch.object(peak_frames, "_SIDE", 8)


@settings(max_examples=300, deadline=None)
@given(answers=stretches, spec=rules, seed=st.integers(0, 9))
def test_of_single_frames_every_peak_at_its_threshold_is_kept(
    answers: np.ndarray, spec: ModelSpec, seed: int
) -> None:
    sound = np.random.default_rng(seed).random(len(answers)) < 0.8
    sound[0] = True
    with TINY:
        held, events = follow(answers, spec, batch=1, sound=sound)
        for event in events:
            threshold = spec.operating_points[event.label].threshold
            assert kept_of(held, event, spec) or round(event.peak_p, 6) < threshold


@settings(max_examples=100, deadline=None)
@given(answers=stretches, spec=rules, batch=st.integers(2, 40))
def test_of_batches_what_is_kept_is_the_peak_and_nothing_else(
    answers: np.ndarray, spec: ModelSpec, batch: int
) -> None:
    with TINY:
        held, events = follow(answers, spec, batch=batch)
        kept = sum(kept_of(held, event, spec) for event in events)
    assert kept == sum(map(len, held._kept.values()))


def test_of_frames_that_follow_one_another_few_are_held() -> None:
    """A window reaches 2 frames on, so an event may begin with any of the first three."""
    answers = np.zeros((12, 3), np.float32)
    answers[2:10, 1] = 0.9, 0.6, 0.7, 0.5, 0.8, 0.8, 0.6, 0.5
    answers[4, 2] = 0.3
    maps = np.zeros((12, 1, 1, 3), np.float32)
    pictures = [picture_of(index) for index in range(12)]
    # The first, the highest of those behind it (the first of two), and the other label's.
    assert list(find_candidates(answers, maps, pictures, SPEC)) == [2, 4, 6]
    apart = [picture_of(2 * index) for index in range(12)]
    assert list(find_candidates(answers, maps, apart, SPEC)) == list(range(2, 10))
    answers[6, 0] = np.nan
    assert list(find_candidates(answers, maps, pictures, SPEC)) == [2, 4, 7, 8, 9]


def test_a_long_event_holds_few_frames() -> None:
    """It rises to its middle, so that each frame of the first half is its highest so far."""
    size = picture_of(0).image.nbytes + features_of(0).nbytes
    up = np.linspace(0.5, 1, 300)
    values = np.concatenate((up, up[::-1]))
    with TINY:
        held, events = follow(np.column_stack((values, 0 * values)), SPEC, batch=16)
        assert [kept_of(held, event, SPEC) for event in events] == [True]
    # The highest so far, that of each of the last two batches, whose votes are not all in, and two at their edge.
    assert held.most <= 5 * size


def test_what_waits_is_bounded(monkeypatch) -> None:
    size = picture_of(0).image.nbytes + features_of(0).nbytes
    monkeypatch.setattr(peak_frames, "WAITING", 3 * size)
    rng = np.random.default_rng(0)
    with TINY:
        held, events = follow(rng.choice([0, 0.5, 0.9], (2000, 2)), SPEC, batch=16)
        kept = sum(kept_of(held, event, SPEC) for event in events)
    assert held.most == 3 * size
    assert 0 < kept < len(events)


def test_a_peak_of_two_labels_is_packed_once(monkeypatch) -> None:
    answers = np.zeros((60, 2))
    answers[20:26] = 0.5, 0.4
    answers[23] = 0.6, 0.4
    answers[20:23, 1] = 0.3
    packed = mock.Mock(side_effect=peak_frames.pack)
    monkeypatch.setattr(peak_frames, "pack", packed)
    with TINY:
        held, events = follow(answers, SPEC, batch=16)
        assert [kept_of(held, event, SPEC) for event in events] == [True, True]
    assert [event.peak_index for event in events] == [23, 23]
    assert packed.call_count == 1


def test_the_places_are_shared_among_labels(monkeypatch) -> None:
    """Twelve events of one label do not take the place of the other's two."""
    answers = np.zeros((600, 2))
    for place in range(12):
        answers[40 * place : 40 * place + 5, 0] = 0.6 + place / 100
    answers[20:25, 1] = answers[300:305, 1] = 0.4
    monkeypatch.setattr(peak_frames, "MOST", 5)
    with TINY:
        held, events = follow(answers, SPEC, batch=16)
        kept = [(event.label, round(event.peak_p, 2)) for event in events if kept_of(held, event, SPEC)]
    assert sorted(kept) == [("polyp", 0.4), ("polyp", 0.4), ("ulcer", 0.69), ("ulcer", 0.7), ("ulcer", 0.71)]


def test_peaks_by_other_thresholds_are_kept_as_well(tmp_path: Path, monkeypatch) -> None:
    def fail(*_args: object) -> None:
        raise AssertionError("decoded again")

    monkeypatch.setattr(thumbnails, "fetch", fail)
    with Reader.open(write_red_model(tmp_path / "red.onnx")) as reader:
        # Of a frame without red bleeding is as probable as 0.02.
        reader.use_thresholds({"bleeding": 0.01})
        study = reader.read(write_exam(tmp_path / "exam.mp4", red=()))
    assert [event.peak_p < 0.1 for event in study.events] == [True]
    assert sorted(study.thumbnails) == [1]
