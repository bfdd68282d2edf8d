"""The side-by-side with peers, run in this environment: no network, a tiny recording, and no time asserted."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from red_model import write_exam, write_red_model

from capsule_edge.benchmarks import peers
from capsule_edge.benchmarks.peers import PEERS, Peer, measure_peers
from capsule_edge.runtime.errors import InputError, ModelError, UsageError


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_red_model(tmp_path_factory.mktemp("model") / "red.onnx")


@pytest.fixture(scope="module")
def exam(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_exam(tmp_path_factory.mktemp("exam") / "exam.mp4")


def here(_peer: Peer) -> Path:
    return Path(sys.executable)


def test_peers_read_the_same_recording_with_the_same_labels(model: Path, exam: Path) -> None:
    rows = measure_peers(exam, [model], ["cv2-onnxruntime", "cv2-openvino"], here, threads=1, rounds=2)
    assert [row.name for row in rows] == [
        *("capsule-edge, onnxruntime", "capsule-edge, openvino", "cv2-onnxruntime", "cv2-openvino")
    ]
    for row in rows:
        assert row.reason is None
        assert len(row.frames_per_s) == 2
        assert min(row.frames_per_s) > 0
        # A frame is red or it is not: no resizing or rounding of colours moves a label.
        assert row.agreement == 1
        assert row.ratio is not None
        assert row.core_ms is not None
        assert row.core_ms > 0
        # The recording is too short for its beginning to be another.
        assert row.start_s is None
        assert row.after_start == row.frames_per_s
    assert rows[0].ratio == 1


def test_the_beginning_is_read_alone_first(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, int | None] = {}
    judge = peers._judge

    def spy(name: str, path: Path, rounds: list[peers._Result], begun: peers._Result | None, ours: object):
        seen[name] = None if begun is None else begun.frames
        assert [one.frames for one in rounds] == [150]
        return judge(name, path, rounds, begun, None)

    monkeypatch.setattr(peers, "_judge", spy)
    exam = write_exam(tmp_path / "long.mp4", frames=150)
    measure_peers(exam, [model], ["cv2-onnxruntime"], here, threads=1, rounds=1)
    assert set(seen) == {"capsule-edge, onnxruntime", "capsule-edge, openvino", "cv2-onnxruntime"}
    # Up to the first key frame behind 64, twelve frames apart.
    assert set(seen.values()) == {72}


def test_time_is_parted_into_the_start_and_the_frames() -> None:
    """2 s and 10 ms a frame; a second round that took .5 s longer."""

    def result(frames: int, late_s: float = 0) -> peers._Result:
        return peers._Result(frames, 2 + 0.01 * frames + late_s, 0.02 * frames)

    row = peers._judge("one", Path("a.onnx"), [result(1000), result(1000)], result(50), None)
    assert (row.start_s, row.after_start, row.core_ms) == (2, [100, 100], 20)
    assert row.frames_per_s == [83.3, 83.3]
    row = peers._judge("one", Path("a.onnx"), [result(1000), result(1000, 0.5)], None, None)
    assert row.start_s is None
    assert row.after_start == row.frames_per_s == [83.3, 80.0]
    row = peers._judge("one", Path("a.onnx"), [result(1000)], result(50, 60), None)
    assert row.start_s is None


def test_a_peer_that_cannot_run_is_listed_with_the_reason(model: Path, exam: Path, tmp_path: Path) -> None:
    def nowhere(_peer: Peer) -> Path:
        return tmp_path / "bin" / "python"

    def empty(_peer: Peer) -> Path:
        # -S hides every installed package from the interpreter, so the program's first import fails.
        script = tmp_path / "python"
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n', "utf-8")
        script.chmod(0o755)
        return script

    rows = measure_peers(exam, [model], ["cv2-onnxruntime", "benchmark_app"], nowhere, threads=1, rounds=2)
    for row in rows[2:]:
        assert "No such file" in (row.reason or "")
        assert (row.frames_per_s, row.ratio, row.agreement) == ([], None, None)
    assert rows[0].ratio == 1
    if sys.platform != "win32":
        (row,) = measure_peers(exam, [model], ["cv2-onnxruntime"], empty, threads=1, rounds=1)[2:]
        assert "No module named" in (row.reason or "")


def test_an_environment_that_pip_cannot_make_is_a_reason(tmp_path: Path) -> None:
    requirements = tmp_path / "none.txt"
    requirements.write_text("./no-such-folder-of-a-package\n", "utf-8")
    with pytest.raises(peers._UnfitError):
        peers.make_environment(tmp_path, Peer("none", "ONNX", requirements=requirements))
    assert not list(tmp_path.glob("*/made"))


def test_it_ends_in_one_line_of_json(
    model: Path,
    exam: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(peers, "make_environment", lambda _folder, peer: here(peer))
    words = [str(exam), str(model), "--envs", str(tmp_path), "--rounds", "1"]
    peers.main([*words, "--peer", "cv2-onnxruntime", "--threads", "1"])
    document = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [row["file"] for row in document["rows"]] == ["red.onnx"] * 3
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


def test_every_pin_names_one_version() -> None:
    for peer in PEERS.values():
        assert peer.pins
        assert all(pin.count("==") == 1 for pin in peer.pins)


def test_a_file_for_ours_alone_goes_to_no_peer(model: Path, exam: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.onnx"
    other.write_bytes(model.read_bytes())
    rows = measure_peers(exam, [model], ["cv2-onnxruntime"], here, alone=[other], threads=1, rounds=1)
    assert [(row.name, row.file) for row in rows if row.file == "other.onnx"] == [
        ("capsule-edge, onnxruntime", "other.onnx"),
        ("capsule-edge, openvino", "other.onnx"),
    ]
    assert (rows[-1].name, rows[-1].file) == ("cv2-onnxruntime", "red.onnx")


def test_ours_reads_a_file_with_the_gate_too(model: Path, exam: Path) -> None:
    rows = measure_peers(exam, [model], [], here, gated=[model], threads=1, rounds=1)
    assert rows[-1].name == "capsule-edge, onnxruntime, gated"
    # Frames of this examination differ, so the gate finds none to pass over.
    assert rows[-1].agreement == 1.0


def test_a_network_that_a_peer_does_not_have_is_a_reason(model: Path, exam: Path) -> None:
    (row,) = measure_peers(exam, [model], ["tf_keras"], here, threads=1, rounds=1)[2:]
    assert "is no MobileNetV2" in (row.reason or "")
