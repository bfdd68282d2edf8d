"""From the start of ``capsule-edge run --jsonl`` to the line of its first frame, each time in a fresh process.

    python -m capsule_edge.benchmarks.first_answer RECORDING... [--model small] [--rounds 5]

Time and, on Linux, the core time that the process had taken by then in all its threads, which other programs hardly
touch. The recordings take turns, medians count. Ends in one line of JSON.
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

from capsule_edge.runtime.errors import BackendError, CapsuleEdgeError, UsageError

from .machine import describe_machine

__all__ = ["measure_first_answer"]

_RUN = "from capsule_edge.cli.main import main; main()"


def measure_first_answer(
    recordings: Sequence[Path], *, model: str = "standard", rounds: int = 5
) -> list[dict[str, Any]]:
    """``seconds`` and ``core_s`` (None where the system does not tell) of each recording.

    Raises ``BackendError`` for a run without an answer, ``UsageError`` for fewer than one round.
    """
    if rounds < 1:
        raise UsageError(f"rounds is {rounds}, allowed is 1 or more")
    found: list[list[tuple[float, float | None]]] = [[] for _ in recordings]
    for _ in range(rounds):
        for rows, recording in zip(found, recordings, strict=True):
            rows.append(_start(recording, model))
    return [
        {
            "recording": recording.name,
            "seconds": round(median(seconds for seconds, _ in rows), 3),
            "core_s": None
            if rows[0][1] is None
            else round(median(core for _, core in rows if core is not None), 3),
        }
        for recording, rows in zip(recordings, found, strict=True)
    ]


def _start(recording: Path, model: str) -> tuple[float, float | None]:
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, "-c", _RUN, "run", str(recording), "--model", model, "--jsonl"]
        began = time.perf_counter()
        with subprocess.Popen(
            [*words, "--out", f"{folder}/out"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as child:
            try:
                for line in child.stdout or ():
                    if json.loads(line)["type"] == "frame":
                        return time.perf_counter() - began, _core_s(child.pid)
            finally:
                child.kill()
                child.wait()
    raise BackendError(f"reading {recording} ended without an answer")


def _core_s(process: int) -> float | None:
    try:
        fields = Path(f"/proc/{process}/stat").read_text("utf-8").rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError):  # not Linux
        return None


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m capsule_edge.benchmarks.first_answer", description=__doc__
    )
    parser.add_argument("recordings", type=Path, nargs="+")
    parser.add_argument("--model", default="standard")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(arguments)
    rows = measure_first_answer(options.recordings, model=options.model, rounds=options.rounds)
    about = {"benchmark": "first_answer", "model": options.model, "machine": describe_machine()}
    print(json.dumps({**about, "results": rows}))


if __name__ == "__main__":
    try:
        main()
    except CapsuleEdgeError as error:
        raise SystemExit(f"error: {error}") from None
