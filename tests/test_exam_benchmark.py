"""The examination beside the plain loop and OpenVINO: every way runs, in turns, and is told."""

from __future__ import annotations

import json
from pathlib import Path

import damage
import pytest
from tiny_model import write_tiny_model

from capsule_edge.benchmarks.exam import main, measure_exam
from capsule_edge.runtime.errors import ModelError, UsageError


def test_all_ways_run_and_the_first_is_the_measure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("openvino")
    recording = damage.encode(tmp_path / "exam.mp4", frames=48)
    model = write_tiny_model(tmp_path / "tiny.onnx")
    main([str(recording), "--model", str(model), "--cores", "1", "--rounds", "1"])
    rows = json.loads(capsys.readouterr().out)["rows"]
    names = [row["name"].split(",")[0] for row in rows]
    assert names == ["capsule-edge", "capsule-edge", "openvino alone", "cv2-onnxruntime"]
    assert [row["name"] for row in rows[:2]] == ["capsule-edge, ungated", "capsule-edge, gated"]
    assert (rows[0]["ratio"], rows[0]["core_ratio"], rows[0]["duplicates"]) == (1, 1, 0)
    assert all(row["frames_per_s"] > 0 and row["core_ms"] > 0 for row in rows)


def test_bad_input_is_refused(tmp_path: Path) -> None:
    recording = damage.encode(tmp_path / "exam.mp4", frames=20)
    with pytest.raises(ModelError, match="no model file"):
        measure_exam(recording, models=[str(tmp_path / "absent.onnx")])
    with pytest.raises(UsageError, match="rounds is 0"):
        measure_exam(recording, rounds=0)
