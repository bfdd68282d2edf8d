"""Test the latency benchmark: its statistics on given times, its last line on files. No time is asserted."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tiny_model import write_tiny_model

from capsule_edge.benchmarks.latency import main, summarise
from capsule_edge.runtime.errors import ModelError


@pytest.mark.quick
def test_load_that_slows_both_files_does_not_change_the_ratio() -> None:
    rng = np.random.default_rng(0)
    # At random the machine is three times slower, for both files alike.
    load = rng.choice([1.0, 3.0], 400)
    times = np.stack([0.004 * load, 0.002 * load * rng.normal(1, 0.01, 400)], axis=1)
    first, second = summarise(times)
    assert first["ratio"] == 1
    assert second["ratio"] == pytest.approx(0.5, abs=0.01)
    low, high = second["ratio_95"]
    assert low <= second["ratio"] <= high
    assert high - low < 0.05
    assert second["min_ms"] <= second["p50_ms"] <= second["p95_ms"] <= second["p99_ms"]


def test_it_ends_in_one_line_of_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [str(write_tiny_model(tmp_path / name)) for name in ("a.onnx", "b.onnx")]
    main([*files, "--rounds", "5"])
    document = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [entry["file"] for entry in document["models"]] == ["a.onnx", "b.onnx"]
    assert document["rounds"] == 5
    assert document["machine"]["cpu"]


def test_a_missing_file_is_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no model file"):
        main([str(tmp_path / "absent.onnx")])
