"""Instructions of one frame: the same twice, more for more work."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_model import write_tiny_model

from capsule_edge.benchmarks import instructions
from capsule_edge.benchmarks.instructions import count_frame, find_lack
from capsule_edge.runtime.errors import BackendError, UsageError


@pytest.mark.skipif(find_lack() is not None, reason=f"instructions cannot be counted: {find_lack()}")
def test_the_count_is_repeatable_and_tells_sizes_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = write_tiny_model(tmp_path / "tiny.onnx")
    instructions.main([str(model), "--times", "2"])
    (row,) = json.loads(capsys.readouterr().out.splitlines()[-1])["models"]
    first, second = row["instructions"]
    # A model of a few hundred thousand instructions, where addresses and allocations show more than in a real one.
    assert first == pytest.approx(second, rel=0.02)
    # An array of each output at least.
    assert min(row["allocations"]) >= 3
    assert max(row["allocations"]) <= 1.02 * min(row["allocations"])
    with pytest.raises(BackendError, match=r"valgrind cannot run it: .*no model file"):
        count_frame(tmp_path / "absent.onnx")


def test_calls_of_the_allocator_are_counted_in_a_dump() -> None:
    dump = """
fn=(1) PyObject_Call
cfn=(2) malloc
calls=3 0
12 300
cfn=(3) malloc_consolidate
calls=5 0
13 10
fn=(2)
14 20
fn=(4) run
cfn=(2)
calls=4 0
15 400
cfn=(5) posix_memalign
calls=1 0
16 7
"""
    assert instructions._count_allocations(dump) == 8


def test_what_is_missing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = write_tiny_model(tmp_path / "tiny.onnx")
    with pytest.raises(UsageError, match="times is 0"):
        instructions.main([str(model), "--times", "0"])
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_lack() is not None
    with pytest.raises(UsageError, match="valgrind is not installed"):
        count_frame(model)
