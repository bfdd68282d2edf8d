"""Instructions and allocations that a model takes for one frame, counted by Valgrind: ``python -m
capsule_edge.benchmarks.instructions MODEL... [--backend NAME]``.

Time depends on what else a machine does, this count does not: it comes out the same to .1 %, so it can be held in
continuous integration. Calls with a fixed frame in one thread are counted, after three that are not, and the least is
taken; the start of Python and the opening of the model run uninstrumented. Valgrind's processor has AVX2 and neither
AVX-512 nor VNNI, whatever the machine has: counts compare versions of one model or of the runtime, not what FP32 and
INT8 take on a processor with VNNI. Allocations are calls of malloc and its kin, Python's own objects included. Needs
valgrind with its headers, and a C compiler. Ends in one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from capsule_edge.runtime.errors import BackendError, UsageError

from .machine import describe_machine

__all__ = ["Counts", "count_frame", "find_lack"]

_ALLOCATING = ("malloc", "calloc", "realloc", "memalign", "posix_memalign", "aligned_alloc")

# What only a compiled program can tell Valgrind.
_MARKS = """
#include <valgrind/callgrind.h>
void begin(void) { CALLGRIND_START_INSTRUMENTATION; }
void end(void) { CALLGRIND_DUMP_STATS; CALLGRIND_STOP_INSTRUMENTATION; }
"""
# Of so many the least counts: what else Python or the engine does now and then only adds to it.
_CALLS = 8
_CODE = f"""
import ctypes, gc, sys
import numpy as np
from capsule_edge.runtime.inference.engines import open_model
marks = ctypes.CDLL(sys.argv[1])
model = open_model(sys.argv[2], backend=sys.argv[3], threads=1)
side = model.spec.input.size
frame = np.random.default_rng(0).integers(0, 256, (1, side, side, 3), dtype=np.uint8)
for _ in range(3):
    model.run(frame)
gc.disable()
for _ in range({_CALLS}):
    marks.begin()
    model.run(frame)
    marks.end()
"""


def find_lack() -> str | None:
    """What is missing here for counting, in words; None where nothing is."""
    if not sys.platform.startswith("linux") or shutil.which("valgrind") is None:
        return "valgrind is not installed"
    if shutil.which("cc") is None:
        return "there is no C compiler"
    tried = subprocess.run(
        ["cc", "-E", "-include", "valgrind/callgrind.h", "-x", "c", os.devnull],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    return None if tried.returncode == 0 else "valgrind's headers are not installed"


@dataclass(frozen=True)
class Counts:
    """Of one frame."""

    instructions: int
    allocations: int


def count_frame(model: Path, *, backend: str = "onnxruntime", limit_s: float = 300) -> Counts:
    """What one frame takes through ``Backend.run``.

    Raises ``UsageError`` where something is missing, ``BackendError`` with the complaint of a process that fails.
    """
    lack = find_lack()
    if lack is not None:
        raise UsageError(f"instructions cannot be counted: {lack}", hint="install valgrind and a C compiler")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "marks.c").write_text(_MARKS, "utf-8")
        marks = folder / "marks.so"
        _call(["cc", "-O1", "-shared", "-fPIC", str(folder / "marks.c"), "-o", str(marks)], limit_s)
        words = [
            "valgrind",
            "--tool=callgrind",
            "--instr-atstart=no",
            f"--callgrind-out-file={folder / 'out'}",
        ]
        _call([*words, sys.executable, "-c", _CODE, str(marks), str(model), backend], limit_s)
        # Each call is dumped into a file of its own. Not the line "summary", which goes below zero when counting was
        # stopped in between.
        dumps = [path.read_text("utf-8") for path in sorted(folder.glob("out.*"))]
        found = [re.search(r"^totals: (\d+)", dump, re.MULTILINE) for dump in dumps]
        counts = [int(one.group(1)) for one in found if one is not None]
        if len(counts) != _CALLS:
            raise BackendError(f"valgrind counted {counts} for {model}, needed are {_CALLS} counts")
        return Counts(min(counts), min(map(_count_allocations, dumps)))


def _count_allocations(dump: str) -> int:
    """Callgrind writes ``cfn=(7) malloc`` for a function that is called, later ``cfn=(7)``, then ``calls=3``."""
    names: dict[str, str] = {}
    called, total = "", 0
    for kind, number, name, calls in re.findall(
        r"^(?:(c?fn)=\((\d+)\)(?: (.+))?|calls=(\d+).*)$", dump, re.MULTILINE
    ):
        if calls:
            total += int(calls) * (names.get(called) in _ALLOCATING)
            continue
        if name:
            names[number] = name
        if kind == "cfn":
            called = number
    return total


def _call(words: Sequence[str], limit_s: float) -> None:
    # Hashes decide how long Python's look-ups are, and its own allocator asks for pools of objects.
    surroundings = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONMALLOC": "malloc"}
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, errors="replace", timeout=limit_s, check=False, env=surroundings
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise BackendError(f"{words[0]} took more than {limit_s:.0f} s") from None
    if done.returncode != 0:
        said = [line for line in done.stderr.strip().splitlines() if not line.startswith("==")]
        raise BackendError(f"{words[0]} cannot run it: {said[-1] if said else done.returncode}")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m capsule_edge.benchmarks.instructions", description=__doc__
    )
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--backend", default="onnxruntime")
    parser.add_argument(
        "--times", type=int, default=1, help="count so often, to see how far counts lie apart"
    )
    options = parser.parse_args(arguments)
    if options.times < 1:
        raise UsageError(f"times is {options.times}, allowed is 1 or more")
    rows = []
    for model in options.models:
        counts = [count_frame(model, backend=options.backend) for _ in range(options.times)]
        instructions = [one.instructions for one in counts]
        allocations = [one.allocations for one in counts]
        spread = max(instructions) / min(instructions) - 1
        rows.append(
            {
                "file": model.name,
                "instructions": instructions,
                "spread": round(spread, 6),
                "allocations": allocations,
            }
        )
        print(
            f"{model.name:28} {instructions[0] / 1e6:10.3f} million instructions  spread {spread:.4%}"
            f"  {min(allocations)} allocations"
        )
    about = {"benchmark": "instructions", "backend": options.backend, "machine": describe_machine()}
    print(json.dumps({**about, "models": rows}))


if __name__ == "__main__":
    from capsule_edge.evaluation._module import run_module

    run_module(main)
