"""Cold start and memory, each time in a fresh process: from its start to the first answer, and the most it held."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from capsule_edge.runtime.errors import BackendError

__all__ = ["measure_startup"]

# What a program that embeds the reader does first; the model's file is read, opened and asked once.
_CODE = """
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


def measure_startup(
    subjects: Sequence[tuple[Path, str]],
    *,
    rounds: int = 5,
    batch: int = 16,
    advance: Callable[[], None] = lambda: None,
) -> list[dict[str, Any]]:
    """For each (model, backend): medians of ``cold_start_s`` (process start to first answer), ``open_s`` (opening
    the model alone) and ``peak_mb`` (the most memory with batches of ``batch``; None where the system does not tell).

    The subjects take turns. The files are in the system's cache from the first round on, which is not counted.
    Raises ``BackendError`` for a process that fails.
    """
    found: list[list[dict[str, Any]]] = [[] for _ in subjects]
    for turn in range(rounds + 1):
        for index, (path, backend) in enumerate(subjects):
            result = _start(path, backend, batch)
            if turn:
                found[index].append(result)
            advance()
    return [
        {
            "cold_start_s": round(median(one["cold_start_s"] for one in rows), 3),
            "open_s": round(median(one["open_s"] for one in rows), 3),
            "peak_mb": None
            if rows[0]["peak_bytes"] is None
            else round(median(one["peak_bytes"] for one in rows) / 1e6, 1),
        }
        for rows in found
    ]


def _start(path: Path, backend: str, batch: int) -> dict[str, Any]:
    started = time.perf_counter()
    words = [sys.executable, "-c", _CODE, str(path), backend, str(batch)]
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
        said = errors.read()
    if child.returncode != 0:
        reason = said.strip().splitlines()[-1] if said.strip() else f"exit code {child.returncode}"
        raise BackendError(f"a fresh process cannot run {path} with {backend}: {reason}")
    return {"cold_start_s": cold, **json.loads(first), **json.loads(rest)}
