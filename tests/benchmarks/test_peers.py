"""Test the comparison with peers in this environment, on a tiny recording. No network is used, no time is asserted."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from red_model import write_exam, write_red_model

from capsule_edge.benchmarks import peers
from capsule_edge.benchmarks.peers import (
    PEERS,
    Peer,
    PeerReading,
    PeerRow,
    Subject,
    UnavailableError,
    measure_peers,
    read_in_turns,
    summarise_readings,
)
from capsule_edge.runtime.errors import InputError, ModelError, UsageError
from capsule_edge.runtime.recording import scan


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_red_model(tmp_path_factory.mktemp("model") / "red.onnx")


@pytest.fixture(scope="module")
def exam(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_exam(tmp_path_factory.mktemp("exam") / "exam.mp4")


def here(_peer: Peer) -> Path:
    return Path(sys.executable)


# Real programs, each in a fresh process; all tests share one measurement.


@pytest.fixture(scope="module")
def rows(model: Path, exam: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], PeerRow]:
    """Rows by program and file: ``red.onnx`` for all, ``other.onnx`` for the reader alone."""
    folder = tmp_path_factory.mktemp("environments")
    other = folder / "other.onnx"
    other.write_bytes(model.read_bytes())
    # -S hides every installed package from the interpreter, so the program's first import fails.
    empty = folder / "python"
    empty.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n', "utf-8")
    empty.chmod(0o755)
    environments = {"ultralytics": empty, "benchmark_app": folder / "bin" / "python"}
    names = ["cv2-onnxruntime", "cv2-openvino", "tf_keras", "ultralytics", "benchmark_app"]
    found = measure_peers(
        exam,
        [model],
        names,
        lambda peer: environments.get(peer.name, Path(sys.executable)),
        alone=[other],
        gated=[model],
        threads=1,
        rounds=1,
    )
    return {(row.name, row.file): row for row in found}


def test_each_file_is_read_by_the_programs_that_it_is_for(rows: dict[tuple[str, str], PeerRow]) -> None:
    """The order is that of the table. A file for the reader alone goes to no peer."""
    assert list(rows) == [
        ("capsule-edge, onnxruntime", "red.onnx"),
        ("capsule-edge, openvino", "red.onnx"),
        ("capsule-edge, onnxruntime", "other.onnx"),
        ("capsule-edge, openvino", "other.onnx"),
        ("capsule-edge, onnxruntime, gated", "red.onnx"),
        *((name, "red.onnx") for name in ("cv2-onnxruntime", "cv2-openvino", "tf_keras")),
        *((name, "red.onnx") for name in ("ultralytics", "benchmark_app")),
    ]


def test_programs_read_the_same_recording_with_the_same_labels(rows: dict[tuple[str, str], PeerRow]) -> None:
    able = [row for row in rows.values() if row.reason is None]
    assert len(able) == 7
    for row in able:
        assert len(row.frames_per_s) == 1
        assert min(row.frames_per_s) > 0
        # A frame is red or it is not: no resizing or rounding of colours changes a label. The near-duplicate filter
        # finds nothing to skip, because the frames differ.
        assert row.agreement == 1
        assert row.ratio is not None
        assert row.core_ms is not None
        assert row.core_ms > 0
        # The recording is too short to read its beginning alone.
        assert row.start_s is None
        assert row.after_start == row.frames_per_s
    assert able[0].ratio == 1


@pytest.mark.skipif(sys.platform == "win32", reason="runs a shell script")
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("ultralytics", "No module named"),
        ("benchmark_app", "No such file"),
        ("tf_keras", "is no MobileNetV2"),
    ],
)
def test_a_peer_that_cannot_run_has_a_reason(
    rows: dict[tuple[str, str], PeerRow], name: str, reason: str
) -> None:
    row = rows[name, "red.onnx"]
    assert reason in (row.reason or "")
    assert (row.frames_per_s, row.ratio, row.agreement) == ([], None, None)


def test_it_ends_in_one_line_of_json(
    model: Path, exam: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(exam), str(model), "--envs", str(tmp_path), "--rounds", "1"]
    peers.main(
        [*words, "--peer", "cv2-onnxruntime", "--threads", "1"], environment=lambda _folder, peer: here(peer)
    )
    document = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [row["file"] for row in document["rows"]] == ["red.onnx"] * 3
    assert document["frames"] == 60
    assert document["pins"] == {"cv2-onnxruntime": list(PEERS["cv2-onnxruntime"].pins)}
    assert document["machine"]["versions"]["onnxruntime"]


def test_bad_input_is_an_error_of_ours(model: Path, exam: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'nonesuch' is not known"):
        measure_peers(exam, [model], ["nonesuch"], here)
    with pytest.raises(ModelError, match="cannot be read"):
        measure_peers(exam, [tmp_path / "absent.onnx"], [], here)
    with pytest.raises(InputError):
        measure_peers(tmp_path / "absent.mp4", [model], [], here)
    with pytest.raises(UsageError, match="allowed are numbers from 1"):
        peers.main([str(exam), str(model), "--envs", str(tmp_path), "--rounds", "0"])


@pytest.mark.quick
def test_every_pin_names_one_version() -> None:
    for peer in PEERS.values():
        assert peer.pins
        assert all(pin.count("==") == 1 for pin in peer.pins)


# Turns and figures, with programs that are made up


def fake(seen: list[tuple[str, int]], name: str, *, fails: int | None = None) -> Subject:
    """A program that notes the frames it reads, 10 ms each, and cannot run from its reading number ``fails`` on."""

    def read(video: Path) -> PeerReading:
        frames = scan(video).present
        seen.append((name, frames))
        if fails is not None and sum(other == name for other, _ in seen) >= fails:
            raise UnavailableError("it stopped")
        return PeerReading(frames, frames / 100, frames / 50)

    return Subject(name, Path("a.onnx"), read)


@pytest.mark.quick
def test_the_beginning_is_read_alone_before_the_rounds(tmp_path: Path) -> None:
    seen: list[tuple[str, int]] = []
    exam = write_exam(tmp_path / "long.mp4", frames=150)
    subjects = [fake(seen, "a"), fake(seen, "b"), fake(seen, "benchmark_app")]
    found = read_in_turns(subjects, exam, tmp_path, rounds=2)
    # The beginning ends before the first key frame after 64 frames; key frames are twelve frames apart.
    turn = [("a", 150), ("b", 150), ("benchmark_app", 150)]
    assert seen == [("a", 72), ("b", 72), *turn, *turn]
    assert [(row.name, row.start_s, row.after_start) for row in found] == [
        ("a", 0, [100, 100]),
        ("b", 0, [100, 100]),
        ("benchmark_app", None, [100, 100]),
    ]


@pytest.mark.quick
def test_a_short_recording_has_no_beginning_of_its_own(tmp_path: Path) -> None:
    seen: list[tuple[str, int]] = []
    exam = write_exam(tmp_path / "short.mp4", frames=30)
    (row,) = read_in_turns([fake(seen, "a")], exam, tmp_path, rounds=1)
    assert seen == [("a", 30)]
    assert row.start_s is None


@pytest.mark.quick
def test_a_program_that_failed_once_is_not_run_again(tmp_path: Path) -> None:
    seen: list[tuple[str, int]] = []
    exam = write_exam(tmp_path / "short.mp4", frames=30)
    a, b = read_in_turns([fake(seen, "a", fails=2), fake(seen, "b")], exam, tmp_path, rounds=3)
    assert [name for name, _ in seen] == ["a", "b", "a", "b", "b"]
    assert (a.reason, a.frames_per_s) == ("it stopped", [])
    assert len(b.frames_per_s) == 3


@pytest.mark.quick
def test_time_is_split_into_the_start_and_the_frames() -> None:
    """A run takes 2 s and 10 ms per frame; one of them takes longer."""

    def reading(frames: int, late_s: float = 0) -> PeerReading:
        return PeerReading(frames, 2 + 0.01 * frames + late_s, 0.02 * frames)

    row = summarise_readings("one", Path("a.onnx"), [reading(1000), reading(1000)], reading(50))
    assert (row.start_s, row.after_start, row.core_ms) == (2, [100, 100], 20)
    assert row.frames_per_s == [83.3, 83.3]
    row = summarise_readings("one", Path("a.onnx"), [reading(1000), reading(1000, 0.5)])
    assert row.start_s is None
    assert row.after_start == row.frames_per_s == [83.3, 80.0]
    # A beginning that took longer than the whole recording does not count.
    row = summarise_readings("one", Path("a.onnx"), [reading(1000)], reading(50, 60))
    assert row.start_s is None


def test_an_environment_that_pip_cannot_make_is_a_reason(tmp_path: Path) -> None:
    requirements = tmp_path / "none.txt"
    requirements.write_text("./no-such-folder-of-a-package\n", "utf-8")
    with pytest.raises(UnavailableError, match="no-such-folder-of-a-package"):
        peers.make_environment(tmp_path, Peer("none", "ONNX", requirements=requirements))
    assert not list(tmp_path.glob("*/made"))
