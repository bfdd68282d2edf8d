"""Measure what reading an archive costs: one worker, two workers, and two workers on Ray, in turns.

    python -m capsule_edge.benchmarks.archive_reading SOURCE... --work DIR [--model small] [--rounds 3] [--ray]

Each reading is a fresh ``capsule-edge archive read`` into a folder of its own, without tables. ``core_s`` is the core
time that workers spend in tasks, as the manifest has it; it does not count the start of interpreters and Ray's own
daemons, which ``wall_s`` does. If other programs run too, compare core time. The last line of output is JSON.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from capsule_edge.runtime.errors import InputError

from .machine import describe_machine, load_now

__all__ = ["compare_engines"]

_ENGINES = {"one": ("--workers", "1"), "two": ("--workers", "2"), "ray": ("--workers", "2", "--ray")}


def compare_engines(
    sources: Sequence[Path],
    work: Path,
    *,
    model: str = "small",
    rounds: int = 3,
    engines: Sequence[str] = ("one", "two"),
    options: Sequence[str] = (),
    report: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Read the sources with each engine in turns and return the medians.

    Args:
        sources: folders or recordings.
        work: a folder for the archives, which are removed.
        model: a model file, or the name of an installed model.
        rounds: rounds whose median counts, at least 1.
        engines: ``one`` worker, ``two`` workers, or two workers on ``ray``.
        options: more options of ``archive read``.
        report: called with a line of progress.

    Returns:
        By engine ``wall_s``, ``core_s`` and ``frames``, and what they are relative to two workers.

    Raises:
        InputError: a recording could not be read.
    """
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in engines}
    for turn in range(rounds):
        for name in engines:
            out = work / f"{name}-{turn}"
            rows[name].append(_read(sources, out, [*_ENGINES[name], "--model", model, *options]))
            shutil.rmtree(out)
            report(f"round {turn + 1}, {name}: {rows[name][-1]}")
    medians = {
        name: {figure: round(median(row[figure] for row in found), 3) for figure in found[0]}
        for name, found in rows.items()
    }
    document: dict[str, Any] = {
        "engines": medians,
        "rounds": rounds,
        "load": load_now(),
        "machine": describe_machine(),
    }
    if "two" in medians:
        two = medians["two"]
        document["relative"] = {
            name: {figure: round(row[figure] / two[figure], 3) for figure in ("wall_s", "core_s")}
            for name, row in medians.items()
        }
    return document


def _read(sources: Sequence[Path], out: Path, options: Sequence[str]) -> dict[str, float]:
    tool = [sys.executable, "-m", "capsule_edge.cli", "archive"]
    command = [*tool, "read", *map(str, sources), "--out", str(out), "--no-tables", "--json", *options]
    begun = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wall_s = time.perf_counter() - begun
    if done.returncode not in (0, 3):
        raise InputError(f"archive read ended with {done.returncode}: {done.stdout}{done.stderr}")
    states = json.loads(done.stdout)["states"]
    if states["failed"] or states["set_aside"]:
        raise InputError(f"not every recording was read: {states}")
    shown = subprocess.run([*tool, "status", str(out), "--json"], capture_output=True, text=True, check=True)
    status = json.loads(shown.stdout)
    return {"wall_s": round(wall_s, 3), "core_s": status["core_s"], "frames": status["frames"]}


def main() -> None:
    """Measure and print one line of JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sources", nargs="+", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="folder for the archives, which are removed")
    parser.add_argument("--model", default="small")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ray", action="store_true", help="read on Ray, too")
    parser.add_argument("--split-frames", default="4096")
    chosen = parser.parse_args()
    chosen.work.mkdir(parents=True, exist_ok=True)
    document = compare_engines(
        chosen.sources,
        chosen.work,
        model=chosen.model,
        rounds=chosen.rounds,
        engines=("one", "two", "ray") if chosen.ray else ("one", "two"),
        options=("--split-frames", chosen.split_frames),
        report=lambda line: print(line, file=sys.stderr, flush=True),
    )
    print(json.dumps(document))


if __name__ == "__main__":
    main()
