"""Whole recordings read in a fresh process: time, core time and the most memory it held.

    python -m capsule_edge.benchmarks.reading RECORDING... [--model M] [--backend NAME] [--cores 2]

Several recordings are read at once, each by a thread, with one model. Nothing is written. Opening the model does not
count. Ends in one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from capsule_edge.runtime.errors import BackendError
from capsule_edge.runtime.reader import Reader

from .machine import limit_cores, peak_memory

__all__ = ["read_afresh", "read_at_once"]


def read_at_once(
    recordings: Sequence[Path], *, model: Path | str | None, backend: str, cores: int
) -> dict[str, Any]:
    """``frames`` of all recordings, ``seconds``, ``core_s`` and ``peak_mb`` (10**6 bytes; None where not told).

    Raises as ``Reader`` does.
    """
    with Reader.open(model, backend=backend, threads=cores, autotune=False) as reader:
        core, began = time.process_time(), time.perf_counter()
        if len(recordings) == 1:
            studies = [reader.read(recordings[0])]
        else:
            with ThreadPoolExecutor(len(recordings)) as pool:
                studies = list(pool.map(reader.read, recordings))
        seconds, core = time.perf_counter() - began, time.process_time() - core
    frames = sum(len(study.frames) for study in studies)
    peak = peak_memory()
    return {
        "recordings": len(recordings),
        "cores": cores,
        "frames": frames,
        "seconds": round(seconds, 3),
        "core_s": round(core, 3),
        "frames_per_s": round(frames / seconds, 1),
        "peak_mb": None if peak is None else round(peak / 1e6, 1),
    }


def read_afresh(
    recordings: Sequence[Path], *, model: Path | str | None, backend: str = "onnxruntime", cores: int
) -> dict[str, Any]:
    """The same in a process of its own. Raises ``BackendError`` with what that complains of."""
    words = [
        sys.executable,
        "-m",
        __name__,
        *map(str, recordings),
        "--backend",
        backend,
        "--cores",
        str(cores),
    ]
    if model is not None:
        words += ["--model", str(model)]
    done = subprocess.run(
        words, capture_output=True, text=True, encoding="utf-8", errors="replace", check=False
    )
    if done.returncode != 0:
        said = done.stderr.strip().splitlines()
        raise BackendError(f"a fresh process cannot read: {said[-1] if said else done.returncode}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {name: value for name, value in found.items() if name != "benchmark"}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m capsule_edge.benchmarks.reading", description=__doc__)
    parser.add_argument("recordings", nargs="+", type=Path)
    parser.add_argument("--model", help="a file, or standard or small, which come with the package")
    parser.add_argument("--backend", default="onnxruntime")
    parser.add_argument("--cores", type=int, default=2)
    options = parser.parse_args(arguments)
    limit_cores(options.cores)
    found = read_at_once(
        options.recordings, model=options.model, backend=options.backend, cores=options.cores
    )
    print(json.dumps({"benchmark": "reading", **found}))


if __name__ == "__main__":
    from capsule_edge.evaluation._module import run_module

    run_module(main)
