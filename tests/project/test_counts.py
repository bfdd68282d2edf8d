"""Test ``.ci/check_counts.py``: which growth of a count is a fault."""

from __future__ import annotations

import importlib.util
import json
from typing import Any

import pytest
from paths import ROOT

PATH = ROOT / ".ci" / "check_counts.py"


@pytest.fixture(scope="module")
def counts() -> Any:
    pytest.importorskip("onnx", reason="needs the extra 'train'")
    spec = importlib.util.spec_from_file_location("check_counts", PATH)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.quick
def test_the_counts_are_of_the_models_that_ship(counts: Any) -> None:
    kept = json.loads(counts.BASELINE.read_text("utf-8"))
    assert kept["models"] == counts.models(), "run: python .ci/check_counts.py --write"
    assert set(kept["counts"]) == set(counts.MOST_GROWTH)


@pytest.mark.quick
@pytest.mark.parametrize(
    ("kind", "name", "now", "fault"),
    [
        ("operators", "m.onnx: float convolutions", 2, "2, was 1, allowed is 0 % more"),
        ("operators", "m.onnx: float convolutions", 0, ""),
        ("operators", "m.onnx: integer convolutions", 52, "52, was 53"),
        ("operators", "m.onnx: integer convolutions", 54, ""),
        ("bytes_written", "frames.csv", 1101, "1101, was 1000, allowed is 10 % more"),
        ("bytes_written", "frames.csv", 1100, ""),
        ("bytes_written", "frames.csv", None, "is not counted any more"),
        ("instructions", "m.int8.onnx", 10_101, "10101, was 10000, allowed is 1 % more"),
        ("instructions", "m.int8.onnx", 10_099, ""),
        ("allocations", "m.int8.onnx", 207, "207, was 202, allowed is 2 % more"),
        ("allocations", "m.int8.onnx", 203, ""),
    ],
)
def test_growth_beyond_the_limit_is_a_fault(
    counts: Any, kind: str, name: str, now: float | None, fault: str
) -> None:
    before = {
        "operators": {"m.onnx: float convolutions": 1, "m.onnx: integer convolutions": 53},
        "bytes_written": {"frames.csv": 1000},
        "instructions": {"m.int8.onnx": 10_000},
        "allocations": {"m.int8.onnx": 202},
    }
    after = {key: dict(values) for key, values in before.items()}
    del after[kind][name]
    if now is not None:
        after[kind][name] = now
    found = counts.judge(before, after)
    assert len(found) == bool(fault)
    assert not fault or fault in found[0]


def test_missing_instructions_are_no_fault(counts: Any) -> None:
    assert counts.judge({kind: {"m.int8.onnx": 10_000} for kind in ("instructions", "allocations")}, {}) == []


def test_the_present_counts_hold(counts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = json.loads(counts.BASELINE.read_text("utf-8"))
    now = counts.count(instructions=False)
    assert counts.judge(kept["counts"], now) == []
    assert all(value > 0 for value in now["bytes_written"].values())
    monkeypatch.setattr("sys.argv", ["check_counts.py"])
    monkeypatch.setattr(counts, "count", lambda: now | {"operators": dict.fromkeys(now["operators"], 99)})
    with pytest.raises(SystemExit, match="float convolutions: 99"):
        counts.main()
    monkeypatch.setattr(counts, "models", dict)
    with pytest.raises(SystemExit, match="of other models"):
        counts.main()
