"""The reader: every frame has one status and one answer, for any batch size, number of threads and damage."""

from __future__ import annotations

import csv
import gc
import hashlib
import io
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import damage
import numpy as np
import pytest
from red_model import RADIUS, view, write_exam, write_red_model
from thread_checks import no_thread_left
from tiny_model import write_tiny_model
from video_samples import recording

from capsule_edge.runtime import Reader, reader
from capsule_edge.runtime.errors import InputError, ModelError, UsageError
from capsule_edge.runtime.inference import installed_models, video_mark
from capsule_edge.runtime.pipeline import Plan, illustrate
from capsule_edge.runtime.preprocessing import FIELD_FRAMES, FieldOfView, batching, preprocess
from capsule_edge.runtime.recording import decode, ffmpeg, gop, scan
from capsule_edge.runtime.report import render_report
from capsule_edge.runtime.results import prepare_folder, write_study
from capsule_edge.runtime.study import STATUSES, FrameTable, Study


@pytest.fixture(scope="module")
def red(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    with Reader.open(write_red_model(tmp_path_factory.mktemp("model") / "red.onnx")) as opened:
        yield opened


def statuses(study: Study) -> list[str]:
    return [frame.status for frame in study.frames]


def check_ledger(study: Study) -> None:
    """Assert that the ledger counts every frame once, by its status. This holds for every study."""
    counts = {status: getattr(study.ledger, status) for status in STATUSES}
    assert sum(counts.values()) == study.ledger.container == len(study.frames)
    assert counts == {status: statuses(study).count(status) for status in STATUSES}
    assert [frame.index for frame in study.frames] == list(range(len(study.frames)))
    for frame in study.frames:
        assert (frame.probabilities is not None) == (frame.status == "classified")
        assert (frame.time_s is None) == (frame.pts is None) == (frame.status == "missing")
        assert bool(frame.detail) == (frame.status == "corrupt")


@pytest.mark.quick
def test_a_recording_becomes_a_study(red: Reader, exam: Path) -> None:
    study = red.read(exam)
    check_ledger(study)
    assert study.ledger.whole
    assert study.ledger.classified == 60
    assert [frame.time_s for frame in study.frames] == [index / 2 for index in range(60)]
    seen = [frame.index for frame in study.frames if frame.probabilities[1] > 0.5]
    assert seen == list(range(20, 32))
    (event,) = study.events
    # A window of 2 s holds 5 frames. At frame 20 three of them are red (0.6, above the threshold of 0.5), at 32 two
    # (0.41, above 0.3, below which the event ends), at 33 one (0.21).
    assert (event.label, event.start_index, event.end_index) == ("bleeding", 20, 32)
    assert (event.start_s, event.end_s) == (10.0, 16.5)
    assert 20 <= event.peak_index < 32
    assert study.source.name == "exam.mp4"
    assert (study.source.time_kind, study.source.time_base.split("/")[0]) == ("capture", "1")


def test_a_recording_that_grows_while_it_is_read_is_told(red: Reader, exam: Path, tmp_path: Path) -> None:
    path = tmp_path / "growing.ts"
    with av.open(str(exam)) as source, av.open(str(path), "w") as file:
        stream = file.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                file.mux(packet)
    whole = path.read_bytes()
    before = whole[: len(whole) // 376 * 188]
    path.write_bytes(before)
    study = red.read(path, on_frame=lambda frame: frame.index == 0 and path.write_bytes(whole))
    check_ledger(study)
    assert 0 < study.ledger.classified < 60
    assert study.source.sha256 == hashlib.sha256(before).hexdigest()
    (warning,) = study.warnings
    assert (warning.code, warning.message.split(" bytes")[0]) == ("grew", f"{len(whole) - len(before):,}")


def test_the_field_of_view_is_the_disc_without_the_caption(red: Reader, exam: Path) -> None:
    box = red.read(exam).source.field_of_view
    assert box is not None
    # The disc is 2 * RADIUS + 1 wide. Rows and columns with fewer pixels of it than 2 % of a side (3 pixels, as in the
    # outermost row) are left out, and coding blurs an edge by about as much.
    assert abs(box.width - (2 * RADIUS + 1)) <= 4
    assert abs(box.height - (2 * RADIUS + 1)) <= 4


def test_thumbnail_and_activation_map_show_the_peak_frame(red: Reader, exam: Path) -> None:
    study = red.read(exam)
    (thumbnail,), (activation,) = study.thumbnails.values(), study.activations.values()
    side = thumbnail.shape[0]
    assert thumbnail.shape == (side, side, 3)
    redness = thumbnail[..., 0].astype(int) - thumbnail[..., 1]
    half = side // 2
    assert redness[half // 2 : half - 10, half // 2 : half - 10].min() > 100
    assert redness[half + 10 :].max() < 40
    assert np.all(thumbnail[:5, :5] == 0)  # outside the field of view, where a caption may be
    assert activation.dtype == np.float32
    assert (activation.min(), activation.max()) == (0, 1)
    assert activation[:2, :2].mean() > 0.5 > 0.1 > activation[2:].max()


def test_colours_are_means_over_time_inside_the_field_of_view(red: Reader, exam: Path) -> None:
    colours = red.read(exam).colours
    assert colours is not None
    assert colours.shape == (30, 3)  # each is of two of the 60 frames
    assert np.isfinite(colours).all()
    redness = colours[:, 0] - colours[:, 1]
    assert np.flatnonzero(redness > 20).tolist() == list(range(10, 16))
    # Tissue is 90 to 129, evenly; black outside the disc would pull the mean below 90.
    assert 90 < colours[:10].min() < colours[:10].max() < 129


@pytest.mark.quick
def test_a_stream_has_the_answers_of_the_recording(red: Reader, exam: Path) -> None:
    study = red.read(exam)
    frames = [frame.rgb() for frame in decode(scan(exam))]
    for batch in (1, 7):
        answers = list(red.stream(iter(frames), batch=batch))
        assert [answer.index for answer in answers] == list(range(60))
        for answer, frame in zip(answers, study.frames, strict=True):
            np.testing.assert_array_equal(answer.probabilities, frame.probabilities)
            assert answer.probability == answer.probabilities.max()
        assert {answer.label for answer in answers[20:32]} == {"bleeding"}
        assert {answer.label for answer in answers[:20]} == {"normal"}
        assert answers[0].features.shape == (4, 4, 3)


@pytest.mark.parametrize(
    ("box", "batch", "ahead"), [(None, 1, FIELD_FRAMES), (FieldOfView(0, 0, 160, 128), 1, 1)]
)
def test_a_stream_takes_frames_only_when_answers_are_asked_for(
    red: Reader, box: FieldOfView | None, batch: int, ahead: int
) -> None:
    taken = []

    def camera() -> Iterator[np.ndarray]:
        for index in range(1000):
            taken.append(index)
            yield view(False, index)

    answers = red.stream(camera(), field_of_view=box, batch=batch)
    assert taken == []
    assert next(answers).index == 0
    assert len(taken) == ahead
    assert next(answers).index == 1
    assert len(taken) == max(2, ahead)
    answers.close()


def test_a_stream_lets_go_of_the_frames_that_it_has_answered(red: Reader) -> None:
    sent: list[weakref.ref[np.ndarray]] = []

    def camera() -> Iterator[np.ndarray]:
        for index in range(3 * FIELD_FRAMES):
            frame = view(False, index)
            sent.append(weakref.ref(frame))
            yield frame

    answers = red.stream(camera())
    for _ in range(2 * FIELD_FRAMES):
        next(answers)
    gc.collect()
    assert sum(frame() is not None for frame in sent) < 4
    answers.close()


@pytest.mark.quick
def test_a_frame_of_another_size_is_named_before_any_answer(red: Reader) -> None:
    frames = [np.zeros((64, 64, 3), np.uint8)] * 3 + [np.zeros((64, 65, 3), np.uint8)]
    taken: list[int] = []

    def camera() -> Iterator[np.ndarray]:
        for index, frame in enumerate([*frames, *frames]):
            taken.append(index)
            yield frame

    with pytest.raises(InputError, match=r"frame 3 is \(64, 65\), the frames before it are \(64, 64\)"):
        next(red.stream(camera()))
    assert taken == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "frames",
    [
        [np.zeros((64, 64, 3), np.float32)],
        [np.zeros((64, 64), np.uint8)],
        [np.zeros((64, 64, 3), np.uint8), np.zeros((64, 65, 3), np.uint8)],
    ],
)
def test_a_stream_refuses_arrays_of_another_type_or_size(red: Reader, frames: list[np.ndarray]) -> None:
    with pytest.raises(InputError):
        list(red.stream(frames, field_of_view=FieldOfView(0, 0, 64, 64)))
    with pytest.raises(InputError):
        list(red.stream(frames))


@pytest.mark.quick
def test_an_empty_stream_has_no_answer(red: Reader) -> None:
    assert list(red.stream([])) == []
    with pytest.raises(UsageError, match="batch is 0"):
        list(red.stream([], batch=0))


@pytest.mark.parametrize("size", [1, 5, 16, 64])
def test_batch_and_threads_change_no_byte(exam: Path, tmp_path: Path, size: int) -> None:
    """Batches must be padded if onnxruntime's answer for a frame ever depends on the batch."""
    damaged = damage.blank(exam, tmp_path / "damaged.mp4", 40)
    model = write_tiny_model(tmp_path / "tiny.onnx", gain=8.0)

    def files(threads: int, size: int = 16) -> dict[str, bytes]:
        with Reader.open(model, plan=Plan(threads or 2, size)) as opened:
            study = opened.read(damaged)
        assert study.ledger.corrupt
        paths = write_study(
            study, prepare_folder(tmp_path / "out", overwrite=True), timing={}, colours=study.colours
        )
        return {name: path.read_bytes() for name, path in paths.items()}

    expected = files(1)
    for threads in (1, 2, 5):
        assert files(threads, size) == expected


@pytest.mark.parametrize("by_gops", [True, False])
def test_each_packet_is_decoded_once(
    red: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_gops: bool
) -> None:
    healthy = write_exam(tmp_path / "healthy.mp4", frames=90, red=())
    packets: list[int] = []
    real = ffmpeg.send

    def watched(*args: Any, **how: Any) -> ffmpeg.PacketOutput:
        packets.append(args[2])
        return real(*args, **how)

    # Closed GOPs are decoded by ``gop``, a recording that is one GOP by ``ffmpeg``.
    monkeypatch.setattr(gop if by_gops else ffmpeg, "send", watched)
    monkeypatch.setattr(
        ffmpeg if by_gops else gop, "send", lambda *_: pytest.fail("decoded by the other module")
    )
    if not by_gops:
        monkeypatch.setattr(gop, "find_gops", lambda container: [range(len(container.packets))])
    assert red.read(healthy).events == []
    assert sorted(packets) == list(range(90))
    packets.clear()
    # The peak frames of events are not decoded again either; only the strips of the report are (``test_strips``).
    monkeypatch.setattr(reader, "make_strips", lambda *_, **__: {})
    assert len(red.read(write_exam(tmp_path / "bleeding.mp4", frames=90)).events) == 1
    assert sorted(packets) == list(range(90))
    packets.clear()
    assert red.read(healthy, end_s=10.0).ledger.classified == 20
    assert packets[:20] == list(range(20))
    # Behind the wanted frames only as many packets as a decoder keeps back.
    assert len(packets) <= 20 + 4


def test_thumbnails_are_cropped_to_the_field_of_view_of_the_recording(red: Reader, exam: Path) -> None:
    box = FieldOfView(50, 30, 40, 40)
    event = red.read(exam).events[0]
    thumbnails, maps = illustrate(scan(exam), [event], red._backend, box)
    rgb = next(frame for frame in decode(scan(exam)) if frame.index == event.peak_index).rgb()
    expected = preprocess(rgb, replace(red.spec.input, size=thumbnails[event.id].shape[0]), box)
    np.testing.assert_array_equal(thumbnails[event.id], expected)
    # The inner four patches show pixels 60 to 79 by 40 to 59, all of them red.
    assert maps[event.id][1:3, 1:3].min() > 0.9


def test_start_end_and_step_choose_the_frames(red: Reader, exam: Path) -> None:
    study = red.read(exam, start_s=5.2, end_s=20.0, every=3)
    check_ledger(study)
    # Frame i lies at i / 2 s: the first at or after 5.2 s is frame 11, and frame 40 at 20 s is no longer read.
    expected = list(range(11, 40, 3))
    assert [frame.index for frame in study.frames if frame.status == "classified"] == expected
    assert study.ledger.skipped == 60 - len(expected)
    assert study.options["every"] == 3
    assert study.options["start_s"] == 5.2
    whole = red.read(exam)
    for index in expected:
        np.testing.assert_array_equal(study.frames[index].probabilities, whole.frames[index].probabilities)


def test_damage_behind_the_wanted_frames_is_not_decoded(red: Reader, exam: Path, tmp_path: Path) -> None:
    damaged = damage.blank(exam, tmp_path / "damaged.mp4", 40)
    assert red.read(damaged).ledger.corrupt > 0
    study = red.read(damaged, end_s=15.0)
    check_ledger(study)
    assert (study.ledger.classified, study.ledger.skipped, study.ledger.corrupt) == (30, 30, 0)


@pytest.mark.parametrize(
    "options",
    [
        {"every": 0},
        {"start_s": -1.0},
        {"start_s": float("nan")},
        {"start_s": 30.0},
        {"start_s": 3.0, "end_s": 3.0},
        {"end_s": 0.0},
        {"capture_fps": 0.0},
        {"capture_fps": float("inf")},
    ],
)
def test_impossible_options_are_refused(red: Reader, exam: Path, options: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        red.read(exam, **options)


def test_capture_rate_scales_the_smoothing(red: Reader, tmp_path: Path) -> None:
    # Three red frames last 0.12 s of a playback of 25 frames a second. Captured at 2 a second they are 1.5 s, and an
    # event after smoothing over 5 frames. Captured at 25 a second, the window of 2 s holds 51 frames and none is left.
    fast = write_exam(tmp_path / "fast.mp4", red=range(20, 23), fps=25)
    assert red.read(fast).source.time_kind == "playback"
    assert len(red.read(fast).events) == 1
    study = red.read(fast, capture_fps=25.0)
    assert study.events == []
    assert study.source.capture_fps == 25.0


def test_frames_after_cancelling_are_unread(red: Reader, exam: Path) -> None:
    calls: list[tuple[int, int]] = []
    study = red.read(exam, progress=lambda *at: calls.append(at), cancel=lambda: len(calls) == 2)
    check_ledger(study)
    done = 36
    # The closed GOPs have 36 frames and 24, and a thread answers 32 frames at once.
    assert calls == [(32, 60), (done, 60)]
    assert statuses(study) == ["classified"] * done + ["unread"] * (60 - done)
    assert not study.ledger.whole
    assert [event.label for event in study.events] == ["bleeding"]
    assert no_thread_left()


def test_progress_reaches_the_number_of_wanted_frames(red: Reader, exam: Path) -> None:
    calls: list[tuple[int, int]] = []
    red.read(exam, every=2, progress=lambda *at: calls.append(at))
    assert calls == [(18, 30), (30, 30)]  # every second frame of closed GOPs of 36 and 24


@pytest.mark.quick
def test_damaged_frames_are_corrupt_and_have_no_answer(red: Reader, exam: Path, tmp_path: Path) -> None:
    study = red.read(damage.blank(exam, tmp_path / "damaged.mp4", 24))
    check_ledger(study)
    # Packet 24 is a key frame, and the next 11 frames build on it.
    assert set(statuses(study)[24:36]) == {"corrupt"}
    assert study.frames[24].detail == "damaged"
    assert study.ledger.classified <= 60 - 12
    # The event ends at its last sound frame.
    assert [(event.label, event.start_index) for event in study.events] == [("bleeding", 20)]
    assert study.events[0].end_index < 24


def test_a_recording_without_a_sound_frame_has_no_field_of_view(red: Reader, tmp_path: Path) -> None:
    exam = write_exam(tmp_path / "exam.mp4", gop=60)
    study = red.read(damage.blank(exam, tmp_path / "damaged.mp4", 0, behind=0))
    check_ledger(study)
    assert study.ledger.corrupt == 60
    assert study.source.field_of_view is None
    assert study.colours is not None
    assert np.isnan(study.colours).all()


@pytest.mark.quick
def test_the_missing_frames_of_a_truncated_recording_come_last(
    red: Reader, exam: Path, tmp_path: Path
) -> None:
    study = red.read(damage.cut(exam, tmp_path / "cut.mp4", 0.5))
    check_ledger(study)
    assert study.ledger.truncated
    assert study.ledger.container == 60
    assert 0 < study.ledger.missing < 60
    assert statuses(study)[-study.ledger.missing :] == ["missing"] * study.ledger.missing
    assert "missing" not in statuses(study)[: -study.ledger.missing]


def test_a_missing_standard_model_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(installed_models.INSTALLED, "standard", "absent.onnx")
    with pytest.raises(ModelError, match="no standard model"):
        Reader.open()


def test_a_negative_number_of_threads_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="threads is -1"):
        Reader.open(tmp_path / "any.onnx", threads=-1)


def test_an_error_while_decoding_reaches_the_caller(
    red: Reader, exam: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_args: object, **_options: object) -> None:
        raise InputError("this frame is strange")

    monkeypatch.setattr(batching, "preprocess_frame", fail)
    with pytest.raises(InputError, match="this frame is strange"):
        red.read(exam)
    assert no_thread_left()


def test_an_error_while_recording_answers_ends_the_threads(
    red: Reader, exam: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_args: object, **_options: object) -> None:
        raise RuntimeError("no memory")

    monkeypatch.setattr(FrameTable, "settle", fail)
    with pytest.raises(RuntimeError, match="no memory"):
        red.read(exam)
    assert no_thread_left()


def test_frames_csv_of_a_real_recording_joins_its_truth(tmp_path: Path) -> None:
    """Each row of frames.csv has its truth row by index, at the same time to the millisecond."""
    path = recording("bca26705313a4644")
    with Reader.open(write_tiny_model(tmp_path / "tiny.onnx")) as opened:
        study = opened.read(path)
    check_ledger(study)
    assert study.ledger.whole
    files = write_study(study, prepare_folder(tmp_path / "out", overwrite=False), timing={})
    rows = list(csv.DictReader(io.StringIO(files["frames.csv"].read_text("utf-8"))))
    truth = list(csv.DictReader(io.StringIO(path.with_suffix(".truth.csv").read_text("utf-8"))))
    assert [int(row["index"]) for row in rows] == [int(row["index"]) for row in truth]
    assert {row["status"] for row in rows} == {"classified"}
    # The truth is rounded to four decimals.
    for row, true in zip(rows, truth, strict=True):
        assert abs(float(row["time_s"]) - float(true["time_s"])) < 1e-3


def test_a_recording_has_the_same_suggestions_for_any_plan() -> None:
    path = recording("eb0203196e284797")
    with Reader.open("small") as reader:
        found = reader.read(path, end_s=120.0)
    assert found.events
    assert sorted(event for one in found.suggestions for event in one.events) == [e.id for e in found.events]
    scores = [one.score for one in found.suggestions]
    assert scores == sorted(scores, reverse=True)
    for plan in (Plan(1, 1), Plan(2, 5)):
        with Reader.open("small", plan=plan) as reader:
            assert reader.read(path, end_s=120.0).suggestions == found.suggestions


def test_a_recording_of_the_training_or_of_the_fit_is_told_at_the_top(red: Reader, exam: Path) -> None:
    digest = hashlib.sha256(exam.read_bytes()).hexdigest()
    marked = {"training_videos": [video_mark("exam")], "fitted_recordings": [digest]}
    reader = Reader(red._backend)
    reader.spec = replace(red.spec, provenance=marked)
    for anonymous in (False, True):
        study = reader.read(exam, anonymous=anonymous)
        assert [warning.code for warning in study.warnings] == ["seen_in_training", "seen_in_fitting"]
        page = render_report(study, tool_version="0")
        assert page.index("This recording is not new to the model") < page.index("Frames read")
        assert "About this file" not in page
    assert red.read(exam).warnings == ()
