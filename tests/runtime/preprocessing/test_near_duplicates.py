"""The near-duplicate filter (option ``gate``): equal frames share an answer, changed frames get their own."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import damage
import numpy as np
import pytest
from red_model import HEIGHT, WIDTH, view, write_exam, write_red_model

from capsule_edge.benchmarks import redundancy
from capsule_edge.runtime import Reader
from capsule_edge.runtime.errors import InputError, UsageError
from capsule_edge.runtime.preprocessing import THRESHOLD, FieldOfView, mark_duplicates, measure
from capsule_edge.runtime.preprocessing.near_duplicates import EVERY, SIDE
from capsule_edge.runtime.recording import Frame, find_gops, scan
from capsule_edge.runtime.results import Journal, prepare_folder, write_study

pytestmark = pytest.mark.quick


@pytest.fixture(scope="module")
def red(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    with Reader.open(write_red_model(tmp_path_factory.mktemp("model") / "red.onnx")) as opened:
        yield opened


def write_still(path: Path, runs: list[tuple[int, bool, int]]) -> Path:
    """Write lossless H.264 of runs of equal frames: (number of frames, red, seed)."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=2, options={"qp": "0", "threads": "1"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.gop_size = 12
        at = 0
        for count, is_red, seed in runs:
            for _ in range(count):
                frame = av.VideoFrame.from_ndarray(view(is_red, seed), format="rgb24")
                frame.pts, frame.time_base = at, Fraction(1, 2)
                out.mux(stream.encode(frame))
                at += 1
        out.mux(stream.encode(None))
    return path


def always_answered(path: Path) -> set[int]:
    """Return the frames that are never duplicates: the first of each closed GOP, and every 64th of the recording."""
    container = scan(path)
    return {gop.start for gop in find_gops(container)} | set(range(0, container.present, EVERY))


def test_a_run_of_equal_frames_is_answered_once(red: Reader, tmp_path: Path) -> None:
    exam = write_still(tmp_path / "still.mp4", [(20, False, 0), (20, True, 0), (60, False, 9)])
    plain, filtered = red.read(exam), red.read(exam, gate=THRESHOLD)
    originals = sorted({0, 20, 40} | always_answered(exam))
    expected = [max(each for each in originals if each <= index) for index in range(100)]
    assert [f.index if f.duplicate_of is None else f.duplicate_of for f in filtered.frames] == expected
    assert {f.index for f in filtered.frames if f.status == "classified"} == set(originals)
    assert filtered.ledger.classified == len(originals) <= 7
    assert (filtered.ledger.duplicate, filtered.ledger.container) == (100 - len(originals), 100)
    assert filtered.ledger.whole
    assert filtered.options["gate"] == THRESHOLD
    assert plain.options["gate"] is None
    for ours, theirs in zip(filtered.frames, plain.frames, strict=True):
        np.testing.assert_array_equal(ours.probabilities, theirs.probabilities)
    assert filtered.events == plain.events
    assert sorted(filtered.thumbnails) == sorted(plain.thumbnails) == [1]
    np.testing.assert_array_equal(filtered.colours, plain.colours)


def test_duplicates_are_written_into_frames_csv(red: Reader, tmp_path: Path) -> None:
    study = red.read(write_still(tmp_path / "still.mp4", [(10, False, 0)]), gate=0.5)
    files = write_study(study, prepare_folder(tmp_path / "out", overwrite=False), timing={})
    rows = list(csv.DictReader(io.StringIO(files["frames.csv"].read_text("utf-8"))))
    assert [row["status"] for row in rows] == ["classified"] + ["duplicate"] * 9
    assert [row["duplicate_of"] for row in rows] == [""] + ["0"] * 9
    assert len({row["p_bleeding"] for row in rows}) == 1


def test_moving_frames_are_all_answered(red: Reader, tmp_path: Path) -> None:
    # Neighbouring frames of this examination differ by 7 of 255 in most pixels.
    study = red.read(write_exam(tmp_path / "exam.mp4"), gate=THRESHOLD)
    assert study.ledger.classified == 60


def test_a_duplicate_is_never_of_a_corrupt_frame(red: Reader, tmp_path: Path) -> None:
    exam = write_still(tmp_path / "still.mp4", [(60, False, 0)])
    study = red.read(damage.blank(exam, tmp_path / "damaged.mp4", 12), gate=THRESHOLD)
    statuses = [frame.status for frame in study.frames]
    # The closed GOPs have 36 frames and 24.
    assert statuses[:36] == ["classified"] + ["duplicate"] * 11 + ["corrupt"] * 12 + ["duplicate"] * 12
    assert statuses[36:] == ["classified"] + ["duplicate"] * 23
    assert {frame.duplicate_of for frame in study.frames if frame.status == "duplicate"} == {0, 36}


def test_every_64th_frame_is_answered_wherever_reading_starts(red: Reader, tmp_path: Path) -> None:
    exam = write_still(tmp_path / "still.mp4", [(150, False, 0)])
    for start_s in (None, EVERY / 2):
        study = red.read(exam, gate=THRESHOLD, start_s=start_s)
        answered = {frame.index for frame in study.frames if frame.status == "classified"}
        assert answered == {frame for frame in always_answered(exam) if not start_s or frame >= EVERY}


def test_only_the_field_of_view_is_compared() -> None:
    frame = view(False)
    changed = frame.copy()
    changed[:12, :30] = 255
    inside = FieldOfView(32, 12, 112, 112)
    np.testing.assert_array_equal(measure(frame, inside), measure(changed, inside))
    assert (measure(frame, None) != measure(changed, None)).any()


@pytest.mark.parametrize("layout", ["yuv420p", "gray", "nv12", "yuv420p10le", "rgb24", "gbrp"])
def test_frames_of_every_pixel_layout_can_be_compared(layout: str) -> None:
    small = measure(av.VideoFrame.from_ndarray(view(True), "rgb24").reformat(format=layout), None)
    assert small.shape == (SIDE, SIDE)
    assert small.dtype == np.uint8
    # The disc is bright and the corners black, whatever the range.
    assert small[16, 20] > 60
    assert small[-1, 0] < 20


def test_frames_are_compared_with_the_last_answered_one() -> None:
    """A slow drift is answered again once it exceeds the threshold."""
    frames = (Frame(index, np.full((64, 64, 3), 100 + index // 4, np.uint8)) for index in range(EVERY))
    answered = [frame.index for frame in mark_duplicates(frames, 2.5) if frame.duplicate_of is None]
    assert answered == [0, 12, 24, 36, 48, 60]


@pytest.mark.parametrize("threshold", [-1, 256, float("nan")])
def test_a_threshold_out_of_range_is_refused(red: Reader, threshold: float, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="gate is"):
        red.read(tmp_path / "any.mp4", gate=threshold)


def test_the_benchmark_simulates_the_filter_of_the_reader(red: Reader, tmp_path: Path) -> None:
    exam = write_still(tmp_path / "still.mp4", [(20, False, 0), (20, True, 0), (20, False, 3)])
    small, large = redundancy.simulate_all(exam, red._engine(1), [0.5, 255.0])
    # The closed GOPs have 36 frames and 24.
    assert small == {"threshold": 0.5, "saved": 56 / 60, "agreement": 1.0, "hidden": 0, "same_events": True}
    # At 255 levels all frames of a GOP are duplicates of its first. That hides the blood of frames 20 to 35; the second
    # GOP begins with a red frame, so its four red frames are answered.
    assert (large["saved"], large["hidden"], large["same_events"]) == (58 / 60, 16, False)
    damaged = damage.blank(exam, tmp_path / "damaged.mp4", 12)
    with pytest.raises(InputError, match="corrupt"):
        redundancy.simulate_all(damaged, red._engine(1), [0.5])


@pytest.mark.parametrize("stop", [16, 48, 112])
def test_a_resumed_run_has_the_duplicates_of_an_uninterrupted_one(
    red: Reader, tmp_path: Path, stop: int
) -> None:
    exam = write_still(tmp_path / "still.mp4", [(30, False, 0), (15, True, 0), (100, False, 9)])
    whole = red.read(exam, gate=THRESHOLD)

    def kill(done: int, _total: int) -> None:
        if done >= stop:
            raise KeyboardInterrupt

    with Journal(tmp_path) as journal, pytest.raises(KeyboardInterrupt):
        red.read(exam, gate=THRESHOLD, journal=journal, progress=kill)
    with Journal(tmp_path) as journal:
        resumed = red.read(exam, gate=THRESHOLD, journal=journal)
        assert journal.resumed > 0
    for ours, theirs in zip(resumed.frames, whole.frames, strict=True):
        assert (ours.status, ours.duplicate_of) == (theirs.status, theirs.duplicate_of)
        np.testing.assert_array_equal(ours.probabilities, theirs.probabilities)
    np.testing.assert_array_equal(resumed.colours, whole.colours)
    assert resumed.events == whole.events
