"""A recording that is read in parts gives the very files that ``read`` gives, whatever the parts and the damage."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import damage
import pytest
from archive_samples import GOP, write_long
from video_samples import recording

from capsule_edge.runtime import Reader
from capsule_edge.runtime.pipeline import Division, PartAnswers, Plan
from capsule_edge.runtime.results import write_study


@pytest.fixture(scope="module")
def small():
    with Reader.open("small", plan=Plan(workers=1, batch=4)) as reader:
        yield reader


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """720 frames in closed GOPs of 40, with B-frames."""
    return write_long(tmp_path_factory.mktemp("long") / "long.mp4", times=18)


def read_in_parts(reader: Reader, division: Division) -> list[PartAnswers]:
    found = []
    for part in division.parts:
        answers = reader.read_part(division, part)
        found.append(answers)
        if answers.failed_packet is not None:
            found.append(reader.read_part(division, division.rest(part, answers)))
            break
    return found


def files(reader: Reader, study, folder: Path) -> dict[str, bytes]:
    folder.mkdir()
    write_study(study, folder, timing={}, colours=study.colours)
    return {name: (folder / name).read_bytes() for name in ("frames.csv", "study.json", "report.html")}


def check_same(reader: Reader, path: Path, folder: Path, *, frames: int, **options) -> Division:
    """Assert that both ways give the same bytes, and return the division."""
    division = reader.divide(path, frames=frames, **options)
    assert division is not None
    # Parts go to other processes.
    division = pickle.loads(pickle.dumps(division))
    study = reader.join(division, read_in_parts(reader, division))
    assert files(reader, study, folder / "parts") == files(
        reader, reader.read(path, **options), folder / "whole"
    )
    return division


@pytest.mark.parametrize(
    ("frames", "options"), [(1, {}), (100, {"gate": 0.5}), (30, {"every": 3, "start_s": 2.0, "end_s": 25.5})]
)
def test_parts_give_the_bytes_of_a_reading(
    small: Reader, long: Path, tmp_path: Path, frames, options
) -> None:
    division = check_same(small, long, tmp_path, frames=frames, **options)
    assert len(division.parts) > 3
    assert [index for part in division.parts for index in part.frames] == list(division.wanted)


@pytest.mark.parametrize("packet", [3, 130, 161, 719])
@pytest.mark.parametrize("gate", [None, 0.5])
def test_damage_in_any_part_gives_the_same_bytes(
    small: Reader, long: Path, tmp_path: Path, packet: int, gate: float | None
) -> None:
    bad = damage.blank(long, tmp_path / "bad.mp4", packet)
    if small.divide(bad, frames=100, gate=gate) is None:
        assert packet == 3  # among the frames in which the field of view is searched
        return
    check_same(small, bad, tmp_path, frames=100, gate=gate)
    assert small.read(bad, gate=gate).ledger.corrupt > 0


def test_a_cut_recording_is_divided_up_to_the_cut(small: Reader, long: Path, tmp_path: Path) -> None:
    cut = damage.cut(long, tmp_path / "cut.mp4", 0.6)
    division = check_same(small, cut, tmp_path, frames=100)
    assert division.parts[-1].in_order


@pytest.mark.parametrize("gate", [None, 0.5])
def test_a_real_recording_in_parts(small: Reader, tmp_path: Path, gate: float | None) -> None:
    check_same(small, recording("bca26705313a4644"), tmp_path, frames=200, gate=gate)


def test_a_recording_without_closed_gops_is_not_divided(small: Reader, made) -> None:
    assert small.divide(made("mpeg4.avi"), frames=10) is None
    assert small.divide(made("mjpeg.avi"), frames=10) is None


def test_answers_that_are_missing_or_double_are_refused(small: Reader, long: Path) -> None:
    division = small.divide(long, frames=200)
    assert division is not None
    answers = read_in_parts(small, division)
    for wrong in (answers[:-1], [answers[0], *answers], [*answers, answers[0]], answers[::-1]):
        with pytest.raises(ValueError, match="parts"):
            small.join(division, wrong)


def test_the_rest_begins_one_gop_before_the_failure(small: Reader, long: Path) -> None:
    division = small.divide(long, frames=100)
    assert division is not None
    part = division.parts[1]
    broken = replace(small.read_part(division, part), failed_packet=part.first_packet)
    nothing = replace(broken, indices=broken.indices[:0])
    rest = division.rest(part, nothing)
    assert rest.in_order
    assert rest.frames == division.wanted[part.frames.start :]
    assert rest.first_packet == part.first_packet - GOP
