"""The reader: every frame accounted for and answered once, whatever the batch, the threads or the damage."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import damage
import numpy as np
import pytest
from red_model import RADIUS, view, write_exam, write_red_model
from thread_checks import no_thread_left
from tiny_model import write_tiny_model

from capsule_edge.runtime import Reader
from capsule_edge.runtime.errors import InputError, ModelError, UsageError
from capsule_edge.runtime.inference import installed_models
from capsule_edge.runtime.pipeline import Plan, illustrate
from capsule_edge.runtime.preprocessing import FIELD_FRAMES, FieldOfView, batching, preprocess
from capsule_edge.runtime.recording import decode, ffmpeg, gop, scan
from capsule_edge.runtime.results import prepare_folder, write_study
from capsule_edge.runtime.study import STATUSES, FrameTable, Study

RECORDINGS = ("64440803f87b4843", "5e59c7fdb16c4228", "bca26705313a4644")


@pytest.fixture(scope="module")
def red(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    with Reader.open(write_red_model(tmp_path_factory.mktemp("model") / "red.onnx")) as opened:
        yield opened


def statuses(study: Study) -> list[str]:
    return [frame.status for frame in study.frames]


def check_account(study: Study) -> None:
    """What is true of every study."""
    counts = {status: getattr(study.ledger, status) for status in STATUSES}
    assert sum(counts.values()) == study.ledger.container == len(study.frames)
    assert counts == {status: statuses(study).count(status) for status in STATUSES}
    assert [frame.index for frame in study.frames] == list(range(len(study.frames)))
    for frame in study.frames:
        assert (frame.probabilities is not None) == (frame.status == "classified")
        assert (frame.time_s is None) == (frame.pts is None) == (frame.status == "missing")
        assert bool(frame.detail) == (frame.status == "corrupt")


def test_a_recording_becomes_a_study(red: Reader, exam: Path) -> None:
    study = red.read(exam)
    check_account(study)
    assert study.ledger.whole
    assert study.ledger.classified == 60
    assert [frame.time_s for frame in study.frames] == [index / 2 for index in range(60)]
    seen = [frame.index for frame in study.frames if frame.probabilities[1] > 0.5]
    assert seen == list(range(20, 32))
    (event,) = study.events
    # A window of 2 s holds 5 frames: at frame 20 three are red (0.6, above 0.5), at 32 two (0.41, above 0.3,
    # where the event ends), at 33 one (0.21).
    assert (event.label, event.start_index, event.end_index) == ("bleeding", 20, 32)
    assert (event.start_s, event.end_s) == (10.0, 16.5)
    assert 20 <= event.peak_index < 32
    assert study.source.name == "exam.mp4"
    assert (study.source.time_kind, study.source.time_base.split("/")[0]) == ("capture", "1")


def test_the_field_of_view_is_the_disc_without_the_caption(red: Reader, exam: Path) -> None:
    box = red.read(exam).source.field_of_view
    assert box is not None
    # The disc is 2 * RADIUS + 1 wide. Rows and columns that only a sliver reaches (2 % of a side, 3 pixels,
    # which a chord has within a pixel of the edge) are left out, and coding blurs an edge by as much.
    assert abs(box.width - (2 * RADIUS + 1)) <= 4
    assert abs(box.height - (2 * RADIUS + 1)) <= 4


def test_pictures_and_maps_are_of_the_peak(red: Reader, exam: Path) -> None:
    study = red.read(exam)
    (picture,), (activation,) = study.thumbnails.values(), study.activations.values()
    side = picture.shape[0]
    assert picture.shape == (side, side, 3)
    redness = picture[..., 0].astype(int) - picture[..., 1]
    half = side // 2
    assert redness[half // 2 : half - 10, half // 2 : half - 10].min() > 100
    assert redness[half + 10 :].max() < 40
    assert np.all(picture[:5, :5] == 0)  # outside the field of view, where a caption may be
    assert activation.dtype == np.float32
    assert (activation.min(), activation.max()) == (0, 1)
    assert activation[:2, :2].mean() > 0.5 > 0.1 > activation[2:].max()


def test_colours_follow_time(red: Reader, exam: Path) -> None:
    colours = red.read(exam).colours
    assert colours is not None
    assert colours.shape == (30, 3)  # two of the 60 frames each, so that none is empty
    assert np.isfinite(colours).all()
    redness = colours[:, 0] - colours[:, 1]
    assert np.flatnonzero(redness > 20).tolist() == list(range(10, 16))
    # Tissue is 90 to 129, evenly; black outside the disc would pull the mean below 90.
    assert 90 < colours[:10].min() < colours[:10].max() < 129


def test_a_stream_answers_as_the_recording(red: Reader, exam: Path) -> None:
    study = red.read(exam)
    frames = [picture.rgb() for picture in decode(scan(exam))]
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
def test_a_stream_takes_frames_as_they_are_asked_for(
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


@pytest.mark.parametrize(
    "frames",
    [
        [np.zeros((64, 64, 3), np.float32)],
        [np.zeros((64, 64), np.uint8)],
        [np.zeros((64, 64, 3), np.uint8), np.zeros((64, 65, 3), np.uint8)],
    ],
)
def test_a_stream_refuses_what_is_no_frame_of_it(red: Reader, frames: list[np.ndarray]) -> None:
    with pytest.raises(InputError):
        list(red.stream(frames, field_of_view=FieldOfView(0, 0, 64, 64)))
    with pytest.raises(InputError):
        list(red.stream(frames))


def test_an_empty_stream_has_no_answer(red: Reader) -> None:
    assert list(red.stream([])) == []
    with pytest.raises(UsageError, match="batch is 0"):
        list(red.stream([], batch=0))


@pytest.mark.parametrize("size", [1, 5, 16, 64])
def test_batch_and_threads_change_no_byte(exam: Path, tmp_path: Path, size: int) -> None:
    """Should onnxruntime ever answer a frame otherwise in another batch, batches have to be padded."""
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
    for threads in (1, 2, 3, 5):
        assert files(threads, size) == expected


@pytest.mark.parametrize("apart", [True, False])
def test_each_picture_is_decoded_once(
    red: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, apart: bool
) -> None:
    healthy = write_exam(tmp_path / "healthy.mp4", frames=90, red=())
    taken: list[int] = []
    real = ffmpeg.send

    def counted(*args: Any) -> ffmpeg.PacketOutput:
        taken.append(args[2])
        return real(*args)

    monkeypatch.setattr(ffmpeg, "send", counted)
    monkeypatch.setattr(gop, "send", counted)
    if not apart:
        monkeypatch.setattr(gop, "find_gops", lambda container: [range(len(container.packets))])
    assert red.read(healthy).events == []
    assert sorted(taken) == list(range(90))
    taken.clear()
    # Nor are the peaks of events decoded again.
    assert len(red.read(write_exam(tmp_path / "bleeding.mp4", frames=90)).events) == 1
    assert sorted(taken) == list(range(90))
    taken.clear()
    assert red.read(healthy, end_s=10.0).ledger.classified == 20
    assert taken[:20] == list(range(20))  # and nothing behind what is wanted but what a decoder keeps back
    assert len(taken) <= 20 + 4


def test_pictures_of_events_are_cut_to_the_field_of_view_of_the_recording(red: Reader, exam: Path) -> None:
    box = FieldOfView(50, 30, 40, 40)
    event = red.read(exam).events[0]
    pictures, maps = illustrate(scan(exam), [event], red._backend, box)
    frame = next(picture for picture in decode(scan(exam)) if picture.index == event.peak_index).rgb()
    expected = preprocess(frame, replace(red.spec.input, size=pictures[event.id].shape[0]), box)
    np.testing.assert_array_equal(pictures[event.id], expected)
    # The inner four patches show pixels 60 to 79 by 40 to 59, all of them red.
    assert maps[event.id][1:3, 1:3].min() > 0.9


def test_a_stretch_and_a_step(red: Reader, exam: Path) -> None:
    study = red.read(exam, start_s=5.2, end_s=20.0, every=3)
    check_account(study)
    # Frames lie at 0.5 s: the first at or after 5.2 s is number 11 and 20 s belongs to number 40.
    expected = list(range(11, 40, 3))
    assert [frame.index for frame in study.frames if frame.status == "classified"] == expected
    assert study.ledger.skipped == 60 - len(expected)
    assert study.options["every"] == 3
    assert study.options["start_s"] == 5.2
    whole = red.read(exam)
    for index in expected:
        np.testing.assert_array_equal(study.frames[index].probabilities, whole.frames[index].probabilities)


def test_damage_outside_the_stretch_is_not_looked_at(red: Reader, exam: Path, tmp_path: Path) -> None:
    damaged = damage.blank(exam, tmp_path / "damaged.mp4", 40)
    assert red.read(damaged).ledger.corrupt > 0
    study = red.read(damaged, end_s=15.0)
    check_account(study)
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
    # At 25 frames a second of playback 3 red frames last 0.12 s. As 2 captured a second they are 1.5 s, an
    # event after smoothing over 5 frames; as 25 a second the window of 2 s holds 51 frames and they vanish.
    fast = write_exam(tmp_path / "fast.mp4", red=range(20, 23), fps=25)
    assert red.read(fast).source.time_kind == "playback"
    assert len(red.read(fast).events) == 1
    study = red.read(fast, capture_fps=25.0)
    assert study.events == []
    assert study.source.capture_fps == 25.0


def test_cancelling_leaves_the_rest_unread(red: Reader, exam: Path) -> None:
    calls: list[tuple[int, int]] = []
    study = red.read(exam, progress=lambda *at: calls.append(at), cancel=lambda: len(calls) == 2)
    check_account(study)
    done = 36
    assert calls == [(32, 60), (done, 60)]  # groups of 36 frames and 24, 32 at once
    assert statuses(study) == ["classified"] * done + ["unread"] * (60 - done)
    assert not study.ledger.whole
    assert [event.label for event in study.events] == ["bleeding"]
    assert no_thread_left()


def test_progress_counts_to_the_end(red: Reader, exam: Path) -> None:
    calls: list[tuple[int, int]] = []
    red.read(exam, every=2, progress=lambda *at: calls.append(at))
    assert calls == [(18, 30), (30, 30)]  # groups of 36 frames and 24


def test_damaged_frames_are_not_answered(red: Reader, exam: Path, tmp_path: Path) -> None:
    study = red.read(damage.blank(exam, tmp_path / "damaged.mp4", 24))
    check_account(study)
    # Picture 24 in decoding order is the key frame of the third group, on which its other 11 build.
    assert set(statuses(study)[24:36]) == {"corrupt"}
    assert study.frames[24].detail == "damaged"
    assert study.ledger.classified <= 60 - 12
    # The event goes on over the damage no further than its own frames.
    assert [(event.label, event.start_index) for event in study.events] == [("bleeding", 20)]
    assert study.events[0].end_index < 24


def test_a_recording_without_a_sound_frame(red: Reader, tmp_path: Path) -> None:
    exam = write_exam(tmp_path / "exam.mp4", gop=60)
    study = red.read(damage.blank(exam, tmp_path / "damaged.mp4", 0, behind=0))
    check_account(study)
    assert study.ledger.corrupt == 60
    assert study.source.field_of_view is None
    assert study.colours is not None
    assert np.isnan(study.colours).all()


def test_missing_frames_come_last(red: Reader, exam: Path, tmp_path: Path) -> None:
    study = red.read(damage.cut(exam, tmp_path / "cut.mp4", 0.5))
    check_account(study)
    assert study.ledger.truncated
    assert study.ledger.container == 60
    assert 0 < study.ledger.missing < 60
    assert statuses(study)[-study.ledger.missing :] == ["missing"] * study.ledger.missing
    assert "missing" not in statuses(study)[: -study.ledger.missing]


def test_no_default_model_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(installed_models.INSTALLED, "standard", "absent.onnx")
    with pytest.raises(ModelError, match="no standard model"):
        Reader.open()


def test_threads_below_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="threads is -1"):
        Reader.open(tmp_path / "any.onnx", threads=-1)


def test_an_error_while_decoding_reaches_the_caller(
    red: Reader, exam: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_args: object, **_options: object) -> None:
        raise InputError("this frame is strange")

    monkeypatch.setattr(batching, "preprocess_planes", fail)
    with pytest.raises(InputError, match="strange"):
        red.read(exam)
    assert no_thread_left()


def test_an_error_while_inferring_ends_the_decoding(
    red: Reader, exam: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_args: object, **_options: object) -> None:
        raise RuntimeError("no memory")

    monkeypatch.setattr(FrameTable, "settle", fail)
    with pytest.raises(RuntimeError, match="no memory"):
        red.read(exam)
    assert no_thread_left()


@pytest.mark.parametrize("name", RECORDINGS)
def test_real_recordings_join_their_truth(name: str, tmp_path: Path) -> None:
    """Each row of frames.csv has its truth row by index, at the same time to the millisecond."""
    path = Path(os.environ.get("CAPSULE_EDGE_DATA") or "/nowhere") / "recordings" / f"{name}.mp4"
    if not path.exists():
        pytest.skip("CAPSULE_EDGE_DATA names no folder with the real recordings")
    with Reader.open(write_tiny_model(tmp_path / "tiny.onnx")) as opened:
        study = opened.read(path)
    check_account(study)
    assert study.ledger.whole
    files = write_study(study, prepare_folder(tmp_path / "out", overwrite=False), timing={})
    rows = list(csv.DictReader(io.StringIO(files["frames.csv"].read_text("utf-8"))))
    truth = list(csv.DictReader(io.StringIO(path.with_suffix(".truth.csv").read_text("utf-8"))))
    assert [int(row["index"]) for row in rows] == [int(row["index"]) for row in truth]
    assert {row["status"] for row in rows} == {"classified"}
    # The truth is written to four decimals, so a millisecond leaves room for its rounding and no other.
    for row, true in zip(rows, truth, strict=True):
        assert abs(float(row["time_s"]) - float(true["time_s"])) < 1e-3
