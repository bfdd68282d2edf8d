"""Count the instructions and allocations of one frame with Valgrind."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from tiny_model import write_tiny_model

from capsule_edge.benchmarks import instructions
from capsule_edge.benchmarks.instructions import (
    FrameCounts,
    count_allocations,
    count_frame,
    find_missing_tool,
)
from capsule_edge.runtime.errors import BackendError, UsageError

MISSING = find_missing_tool()
needs_valgrind = pytest.mark.skipif(MISSING is not None, reason=f"instructions cannot be counted: {MISSING}")


@needs_valgrind
def test_a_real_model_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One count alone, because it takes seconds. ``.ci/check_counts.py`` holds that counts are repeatable."""
    model = write_tiny_model(tmp_path / "tiny.onnx")
    instructions.main([str(model)])
    (row,) = json.loads(capsys.readouterr().out.splitlines()[-1])["models"]
    # The engine alone takes some 100,000 instructions per call; the start of Python, which must not count, billions.
    assert 10_000 < row["instructions"][0] < 100_000_000
    # At least one array for each of the three outputs.
    assert row["allocations"][0] >= 3
    assert row["spread"] == 0


@pytest.mark.quick
def test_repeated_counts_have_a_spread(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    counts = iter([FrameCounts(1010, 7), FrameCounts(1000, 8)])
    instructions.main([str(tmp_path / "a.onnx"), "--times", "2"], count=lambda *_, **__: next(counts))
    *_, line, document = capsys.readouterr().out.splitlines()
    (row,) = json.loads(document)["models"]
    assert (row["instructions"], row["allocations"], row["spread"]) == ([1010, 1000], [7, 8], 0.01)
    assert "7 allocations" in line


@needs_valgrind
def test_a_program_that_fails_is_an_error_with_its_last_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A valgrind that runs the program without instrumentation: the real one takes seconds to start Python.
    fake = tmp_path / "valgrind"
    fake.write_text('#!/bin/sh\nwhile [ "${1#--}" != "$1" ]; do shift; done\nexec "$@"\n', "utf-8")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(BackendError, match=r"valgrind cannot run it: .*no model file"):
        count_frame(tmp_path / "absent.onnx")
    with pytest.raises(BackendError, match=r"valgrind made 0 counts"):
        count_frame(write_tiny_model(tmp_path / "tiny.onnx"))


@pytest.mark.quick
def test_calls_of_allocators_are_counted_in_a_dump() -> None:
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
    assert count_allocations(dump) == 8


@pytest.mark.quick
def test_a_missing_tool_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = write_tiny_model(tmp_path / "tiny.onnx")
    with pytest.raises(UsageError, match="times is 0"):
        instructions.main([str(model), "--times", "0"])
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_missing_tool() is not None
    with pytest.raises(UsageError, match="valgrind is not installed"):
        count_frame(model)
