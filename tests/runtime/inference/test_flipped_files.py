"""Model files with one bit flipped: refused in one line, or opened; never a traceback, never called correct."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "flipped_files.py"


def outcomes(folder: Path, count: int) -> Counter[tuple[str, str]]:
    """Return how often each engine and ``doctor`` came to each outcome, with ``count`` files of each format."""
    done = subprocess.run(
        [sys.executable, SCRIPT, str(folder), str(count)],
        capture_output=True,
        text=True,
        timeout=580,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    lines = done.stdout.splitlines()
    assert done.returncode == 0, f"ended with {done.returncode} at {lines[-1:]}: {done.stderr[-500:]}"
    found = [json.loads(line) for line in lines if line.startswith("{")]
    assert len(found) == len([line for line in lines if "flipped-" in line and line[0] != "{"])
    counts: Counter[tuple[str, str]] = Counter()
    for entry in found:
        counts.update(entry["engines"].items())
        counts["doctor", entry["doctor"]] += 1
    return counts


def check(counts: Counter[tuple[str, str]]) -> None:
    print("\n".join(f"{who}: {outcome} {count}" for (who, outcome), count in sorted(counts.items())))
    assert {outcome for who, outcome in counts if who == "doctor"} <= {"not verified", "wrong", "refused"}
    assert {outcome for who, outcome in counts if who != "doctor"} <= {"equal", "other", "refused"}
    # Some of the flips have each of these effects, or the test would show nothing.
    assert counts["onnxruntime", "other"]
    assert counts["onnxruntime", "refused"]


def test_a_flipped_bit_is_no_traceback_and_never_correct(tmp_path: Path) -> None:
    check(outcomes(tmp_path, 5))


@pytest.mark.flips
def test_three_hundred_flipped_files(tmp_path: Path) -> None:
    check(outcomes(tmp_path, 150))
