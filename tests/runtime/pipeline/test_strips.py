"""Strips of small pictures: the right frames, the same for every number of threads, and bounded work."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import damage
import numpy as np
import pytest
from red_model import write_exam, write_red_model

from capsule_edge.runtime import Reader
from capsule_edge.runtime.pipeline import Plan, make_strips, strips
from capsule_edge.runtime.preprocessing import preprocess_frame
from capsule_edge.runtime.recording import decode, decoding_runs, ffmpeg, scan
from capsule_edge.runtime.study import StripPicture, Study

RED = [*range(4, 10), *range(30, 40), *range(70, 110)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_red_model(tmp_path_factory.mktemp("model") / "red.onnx")


@pytest.fixture
def exam(tmp_path: Path) -> Path:
    return write_exam(tmp_path / "exam.mp4", frames=130, red=RED)


def read(model: Path, exam: Path, **options: object) -> Study:
    with Reader.open(model) as reader:
        return reader.read(exam, **options)


def test_the_pictures_are_those_of_their_frames(model: Path, exam: Path) -> None:
    study = read(model, exam)
    assert len(study.events) == 3
    frames = {frame.index: frame for frame in decode(scan(exam))}
    small = replace(study.model.input, size=128)
    for event in study.events:
        strip = study.strips[event.id]
        assert 8 <= len(strip) <= 12
        assert event.peak_index in [picture.index for picture in strip]
        for picture in strip:
            shown = cv2.imdecode(np.frombuffer(picture.jpeg, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
            wanted = preprocess_frame(frames[picture.index], small, study.source.field_of_view)
            assert shown.shape == (128, 128, 3)
            # JPEG quality 80 changes a smooth picture by some levels; the next red or pale frame differs by far more.
            assert np.abs(shown.astype(int) - wanted).mean() < 6


def test_strips_do_not_depend_on_threads_batches_or_parts(
    model: Path, exam: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    for threads, batch, parts in ((1, 16, 2), (2, 3, 2), (5, 16, 2), (2, 16, 1), (3, 16, 3)):
        monkeypatch.setattr(strips, "_PARTS", parts)
        with Reader.open(model, plan=Plan(threads, batch)) as reader:
            made.append(reader.read(exam).strips)
    assert all(each == made[0] for each in made)
    assert len(made[0]) == 3


KINDS = {
    "open_gop.mp4": {"options": {"bf": "3", "x264-params": "open-gop=1"}},
    "mpeg4_b.avi": {"codec": "mpeg4", "options": {"bf": "2"}},
    "mjpeg.avi": {"codec": "mjpeg", "pixels": "yuvj420p"},
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"lag-in-frames": "12", "cpu-used": "8"}},
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_runs_are_what_fetch_decodes(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    container = scan(damage.encode(tmp_path / kind, **KINDS[kind]))
    runs = decoding_runs(container)
    assert runs.shape == (container.present, 2)
    sent: list[int] = []
    real = ffmpeg.send
    monkeypatch.setattr(ffmpeg, "send", lambda *args, **how: sent.append(args[2]) or real(*args, **how))
    for index in (0, 13, 30, container.present - 1):
        sent.clear()
        assert [frame.index for frame in strips.fetch(container, [index])] == [index]
        assert sent == list(range(*runs[index].tolist()))


def test_the_frames_decoded_again_are_bounded_and_the_best_events_come_first(
    model: Path, exam: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = read(model, exam)
    container = scan(exam)
    runs = decoding_runs(container)
    ranked = sorted(study.events, key=lambda event: event.id, reverse=True)  # an order of its own

    def cost(made: dict[int, tuple[StripPicture, ...]]) -> int:
        needed = np.zeros(len(container.packets), np.bool_)
        for picture in (picture for strip in made.values() for picture in strip):
            first, end = runs[picture.index].tolist()
            needed[first:end] = True
        return int(needed.sum())

    def make() -> dict[int, tuple[StripPicture, ...]]:
        every = study.frames.columns()
        box = study.source.field_of_view
        return make_strips(container, ranked, every, study.model.input, box, gap_s=5.0, threads=2)

    monkeypatch.setattr(strips, "_MOST_STRIPS", 1)
    assert list(make()) == [ranked[0].id]
    first = cost(make())
    monkeypatch.setattr(strips, "_MOST_STRIPS", 200)
    monkeypatch.setattr(strips, "_SHARE", 1 << 30)
    for most in (0, first - 1, first, first + 5, 130):
        monkeypatch.setattr(strips, "_AT_LEAST", most)
        made = make()
        assert cost(made) <= most
        assert (ranked[0].id in made) == (most >= first)
    assert len(made) == 3


def test_frames_that_were_not_read_are_in_no_strip(model: Path, exam: Path) -> None:
    study = read(model, exam, every=3)
    assert study.events
    shown = [picture.index for strip in study.strips.values() for picture in strip]
    assert shown
    assert {study.frames[index].status for index in shown} == {"classified"}


def test_a_recording_that_vanished_costs_the_strips_and_not_the_answers(model: Path, exam: Path) -> None:
    last = 129

    def vanish(record: object) -> None:
        if record.index == last:  # type: ignore[attr-defined]
            exam.unlink()

    with Reader.open(model) as reader:
        study = reader.read(exam, on_frame=vanish)
    assert study.ledger.classified == 130
    assert len(study.events) == len(study.thumbnails) == 3
    assert study.strips == {}
    assert [warning.code for warning in study.warnings] == ["strips_not_made"]


def test_a_series_of_images_has_strips(model: Path, exam: Path, tmp_path: Path) -> None:
    folder = tmp_path / "series"
    folder.mkdir()
    for frame in decode(scan(exam)):
        cv2.imwrite(str(folder / f"{frame.index:04d}.png"), frame.rgb()[..., ::-1])
    study = read(model, folder)
    assert study.events
    assert all(8 <= len(study.strips[event.id]) <= 12 for event in study.events)
