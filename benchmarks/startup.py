"""Measure the time from the start of a process to its first answer, each time in a fresh process.

    python -m capsule_edge.benchmarks.startup RECORDING... [--model small] [--rounds 5]

The command measures the start of a reading: from the start of ``capsule-edge run --jsonl`` to the line of the first
frame. It reports the wall time and, on Linux, the core time of all threads of the process, which other programs hardly
influence. The recordings take turns and the median counts. The last line of output is JSON.

``capsule-edge bench`` measures the start of a model alone (``measure_startup``): a process that opens the model file
and answers one frame.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from capsule_edge.runtime.errors import BackendError, UsageError

from .machine import describe_machine

__all__ = ["measure_first_answer", "measure_startup"]

# A program that embeds a model: it opens the file and answers one frame. The batches after that only show how much
# memory the process needs.
_MODEL_PROGRAM = """
import json, sys, time
import numpy as np
from capsule_edge.runtime.inference.engines import open_model
path, backend, batch = sys.argv[1], sys.argv[2], int(sys.argv[3])
started = time.perf_counter()
model = open_model(path, backend=backend, threads=1)
opened = time.perf_counter()
side = model.spec.input.size
frames = np.zeros((1, side, side, 3), np.uint8)
model.run(frames)
print(json.dumps({"open_s": opened - started}), flush=True)
frames = np.zeros((batch, side, side, 3), np.uint8)
for _ in range(5):
    model.run(frames)
from capsule_edge.benchmarks.machine import peak_memory
print(json.dumps({"peak_bytes": peak_memory()}), flush=True)
"""
_RUN_PROGRAM = "from capsule_edge.cli.main import main; main()"


def measure_startup(
    subjects: Sequence[tuple[Path, str]], *, rounds: int = 5, batch: int = 16
) -> list[dict[str, Any]]:
    """Measure cold start and peak memory of each model on its backend. The subjects take turns.

    One extra round before the first is not counted: it loads the files into the system's cache.

    Args:
        subjects: pairs of a model file and the name of a backend.
        rounds: fresh processes per subject whose median counts.
        batch: frames per call while the memory is measured.

    Returns:
        For each subject ``cold_start_s`` (process start to first answer), ``open_s`` (opening the model alone) and
        ``peak_mb`` (10**6 bytes; None if the system does not report it).

    Raises:
        BackendError: a process failed.
    """
    samples: list[list[dict[str, Any]]] = [[] for _ in subjects]
    for turn in range(rounds + 1):
        for rows, (path, backend) in zip(samples, subjects, strict=True):
            sample = _start_model(path, backend, batch)
            if turn:
                rows.append(sample)
    return [
        {
            "cold_start_s": round(median(sample["cold_start_s"] for sample in rows), 3),
            "open_s": round(median(sample["open_s"] for sample in rows), 3),
            "peak_mb": None
            if rows[0]["peak_bytes"] is None
            else round(median(sample["peak_bytes"] for sample in rows) / 1e6, 1),
        }
        for rows in samples
    ]


def _start_model(path: Path, backend: str, batch: int) -> dict[str, Any]:
    """Run ``_MODEL_PROGRAM`` once and return its two lines of JSON with the time to the first one."""
    started = time.perf_counter()
    words = [sys.executable, "-c", _MODEL_PROGRAM, str(path), backend, str(batch)]
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors,
        subprocess.Popen(words, stdout=subprocess.PIPE, stderr=errors, text=True) as child,
    ):
        lines = child.stdout or ()
        first = next(iter(lines), "")
        cold = time.perf_counter() - started
        rest = "".join(lines)
        child.wait()
        errors.seek(0)
        complaint = errors.read().strip()
    if child.returncode != 0:
        reason = complaint.splitlines()[-1] if complaint else f"exit code {child.returncode}"
        raise BackendError(f"a fresh process cannot run {path} with {backend}: {reason}")
    return {"cold_start_s": cold, **json.loads(first), **json.loads(rest)}


def measure_first_answer(
    recordings: Sequence[Path], *, model: str = "standard", rounds: int = 5
) -> list[dict[str, Any]]:
    """Measure the time from the start of ``capsule-edge run --jsonl`` to the line of the first frame.

    Args:
        recordings: files to read; they take turns.
        model: a model file, or the name of an installed model.
        rounds: fresh processes per recording whose median counts, at least 1.

    Returns:
        For each recording its file name (``recording``), ``seconds`` of wall time and ``core_s`` of core time (None
        if the system does not report it).

    Raises:
        BackendError: a reading ended before its first frame.
        UsageError: ``rounds`` is below 1.
    """
    if rounds < 1:
        raise UsageError(f"rounds is {rounds}, allowed is 1 or more")
    samples: list[list[tuple[float, float | None]]] = [[] for _ in recordings]
    for _ in range(rounds):
        for rows, recording in zip(samples, recordings, strict=True):
            rows.append(_start_reading(recording, model))
    return [
        {
            "recording": recording.name,
            "seconds": round(median(seconds for seconds, _ in rows), 3),
            "core_s": None
            if rows[0][1] is None
            else round(median(core for _, core in rows if core is not None), 3),
        }
        for recording, rows in zip(recordings, samples, strict=True)
    ]


def _start_reading(recording: Path, model: str) -> tuple[float, float | None]:
    """Return wall and core seconds to the first frame's line, then end the reading."""
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, "-c", _RUN_PROGRAM, "run", str(recording), "--model", model, "--jsonl"]
        started = time.perf_counter()
        with subprocess.Popen(
            [*words, "--out", f"{folder}/out"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as child:
            try:
                for line in child.stdout or ():
                    if json.loads(line)["type"] == "frame":
                        return time.perf_counter() - started, _core_seconds(child.pid)
            finally:
                child.kill()
                child.wait()
    raise BackendError(f"reading {recording} ended without an answer")


def _core_seconds(process: int) -> float | None:
    try:
        fields = Path(f"/proc/{process}/stat").read_text("utf-8").rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError):  # not Linux
        return None


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m capsule_edge.benchmarks.startup",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("recordings", type=Path, nargs="+", metavar="RECORDING", help="recordings to read")
    parser.add_argument(
        "--model", default="standard", help="model file or installed model (default: %(default)s)"
    )
    parser.add_argument(
        "--rounds", type=int, default=5, help="readings of each recording (default: %(default)s)"
    )
    options = parser.parse_args(arguments)
    rows = measure_first_answer(options.recordings, model=options.model, rounds=options.rounds)
    about = {"benchmark": "startup", "model": options.model, "machine": describe_machine()}
    print(json.dumps({**about, "results": rows}))


if __name__ == "__main__":
    from capsule_edge.evaluation._module import run_module

    run_module(main)
