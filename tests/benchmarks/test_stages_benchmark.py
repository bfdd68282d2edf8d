"""Test the benchmark of the stages, whose figures must add up, and the reference examination."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from red_model import write_exam
from tiny_model import write_tiny_model

from capsule_edge.benchmarks import reference_exam, stages
from capsule_edge.runtime.errors import UsageError
from capsule_edge.runtime.recording import decode, scan


def test_the_stages_add_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exam = write_exam(tmp_path / "exam.mp4", frames=200)
    model = write_tiny_model(tmp_path / "tiny.onnx")
    stages.main([str(exam), str(model), "--cores", "1", "--rounds", "1"])
    document = json.loads(capsys.readouterr().out.splitlines()[-1])
    parts = document["core_ms_per_frame"]
    assert set(parts) == {"decode", "prepare", "infer"}
    assert all(value > 0 for value in parts.values())
    # Rounded to three places each.
    assert sum(parts.values()) == pytest.approx(document["sum_of_stages_ms"], abs=0.002)
    assert set(document["beside_ms_per_frame"]) == {"gate", "events", "write"}
    assert all(value >= 0 for value in document["beside_ms_per_frame"].values())
    # Writing a report takes more than .0001 ms per frame, the last digit of the figure.
    assert document["beside_ms_per_frame"]["write"] > 0
    # On one core the stages follow one another.
    assert document["allowed_frames_per_s"] == pytest.approx(1e3 / document["sum_of_stages_ms"], rel=0.05)


@pytest.mark.parametrize("source", ["recordings", "phantom"])
def test_the_examination_has_the_frames_that_were_asked_for(source: str, tmp_path: Path) -> None:
    # A recording of four frames, which is repeated seven times.
    recordings = [write_exam(tmp_path / "a.mp4", frames=4)] if source == "recordings" else []
    about = reference_exam.write_exam(tmp_path / "exam.mp4", frames=26, recordings=recordings)
    container = scan(tmp_path / "exam.mp4")
    assert (about["source"], about["frames"]) == (source, 26)
    assert (container.codec, container.width, container.height) == ("h264", 336, 336)
    assert (container.present, container.time_kind, container.frame_distance_s) == (26, "capture", 0.5)
    if source == "recordings":
        pictures = [picture.rgb() for picture in decode(container)]
        first, second = pictures[0].astype(int), pictures[4].astype(int)
        # The same frame, rotated: other pixels, about the same brightness.
        assert abs(first - second).mean() > 5
        assert first.mean() == pytest.approx(second.mean(), rel=0.1)


def test_an_examination_has_at_least_one_frame(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="frames is 0"):
        reference_exam.write_exam(tmp_path / "exam.mp4", frames=0)


def test_a_folder_without_the_recordings_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAPSULE_EDGE_DATA", str(tmp_path))
    assert reference_exam.find_recordings() == []
