"""Count the instructions and memory allocations of a model for one frame, with Valgrind.

    python -m capsule_edge.benchmarks.instructions MODEL... [--backend NAME] [--times 1]

A time depends on the other work of a machine; this count does not. It is the same to .1 %, so continuous integration
can hold it. The model answers a fixed frame in one thread. Three calls are not counted, then several are, and the
smallest count is the result. The start of Python and the opening of the model are not counted.

Valgrind emulates a processor with AVX2 but without AVX-512 and VNNI. The counts therefore compare versions of one model
or of the runtime. They do not compare FP32 with INT8 on a processor that has VNNI. Allocations are calls of malloc and
the like, Python's own included. Valgrind with its headers and a C compiler must be installed. The last line of output
is JSON.
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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from capsule_edge.runtime.errors import BackendError, UsageError

from .machine import describe_machine

__all__ = ["FrameCounts", "count_allocations", "count_frame", "find_missing_tool"]

_ALLOCATORS = ("malloc", "calloc", "realloc", "memalign", "posix_memalign", "aligned_alloc")

# Marks the counted calls for Valgrind; only compiled code can.
_MARKS = """
#include <valgrind/callgrind.h>
void begin(void) { CALLGRIND_START_INSTRUMENTATION; }
void end(void) { CALLGRIND_DUMP_STATS; CALLGRIND_STOP_INSTRUMENTATION; }
"""
# Counted calls, of which the smallest counts: other work of Python or the engine only adds to it.
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


def find_missing_tool() -> str | None:
    """Return a sentence that names the first missing tool, or None if instructions can be counted here."""
    if not sys.platform.startswith("linux") or shutil.which("valgrind") is None:
        return "valgrind is not installed"
    if shutil.which("cc") is None:
        return "there is no C compiler"
    compiled = subprocess.run(
        ["cc", "-E", "-include", "valgrind/callgrind.h", "-x", "c", os.devnull],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    return None if compiled.returncode == 0 else "valgrind's headers are not installed"


@dataclass(frozen=True)
class FrameCounts:
    """Instructions and allocations of one frame."""

    instructions: int
    allocations: int


def count_frame(model: Path, *, backend: str = "onnxruntime", limit_s: float = 300) -> FrameCounts:
    """Count one call of ``Backend.run`` with one frame.

    Args:
        model: model file.
        backend: name of the backend.
        limit_s: seconds after which a process is stopped.

    Raises:
        UsageError: a tool is missing (``find_missing_tool``).
        BackendError: a process failed; the message has its last line.
    """
    missing = find_missing_tool()
    if missing is not None:
        raise UsageError(
            f"instructions cannot be counted: {missing}", hint="install valgrind and a C compiler"
        )
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
        # Valgrind writes one file per counted call. Its line "summary" goes below zero after counting was stopped in
        # between, so the line "totals" is read.
        dumps = [path.read_text("utf-8") for path in sorted(folder.glob("out.*"))]
        found = [re.search(r"^totals: (\d+)", dump, re.MULTILINE) for dump in dumps]
        counts = [int(one.group(1)) for one in found if one is not None]
        if len(counts) != _CALLS:
            raise BackendError(f"valgrind made {len(counts)} counts for {model}, needed are {_CALLS}")
        return FrameCounts(min(counts), min(map(count_allocations, dumps)))


def count_allocations(dump: str) -> int:
    """Count the calls of memory allocators in a dump of callgrind.

    The dump has ``cfn=(7) malloc`` for a called function (later only ``cfn=(7)``), followed by ``calls=3``.
    """
    names: dict[str, str] = {}
    called, total = "", 0
    for kind, number, name, calls in re.findall(
        r"^(?:(c?fn)=\((\d+)\)(?: (.+))?|calls=(\d+).*)$", dump, re.MULTILINE
    ):
        if calls:
            total += int(calls) * (names.get(called) in _ALLOCATORS)
            continue
        if name:
            names[number] = name
        if kind == "cfn":
            called = number
    return total


def _call(words: Sequence[str], limit_s: float) -> None:
    # Fixed hashes make Python's look-ups repeatable. Python's own allocator would ask for whole pools of objects.
    environment = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONMALLOC": "malloc"}
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, errors="replace", timeout=limit_s, check=False, env=environment
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise BackendError(f"{words[0]} took more than {limit_s:.0f} s") from None
    if done.returncode != 0:
        lines = [line for line in done.stderr.strip().splitlines() if not line.startswith("==")]
        raise BackendError(f"{words[0]} cannot run it: {lines[-1] if lines else done.returncode}")


def main(arguments: Sequence[str] | None = None, *, count: Callable[..., FrameCounts] = count_frame) -> None:
    options = _make_parser().parse_args(arguments)
    if options.times < 1:
        raise UsageError(f"times is {options.times}, allowed is 1 or more")
    rows = []
    for model in options.models:
        counts = [count(model, backend=options.backend) for _ in range(options.times)]
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


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m capsule_edge.benchmarks.instructions",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("models", nargs="+", type=Path, metavar="MODEL", help="model files")
    parser.add_argument("--backend", default="onnxruntime", help="inference engine (default: %(default)s)")
    parser.add_argument(
        "--times", type=int, default=1, help="repeat the count, to see its spread (default: %(default)s)"
    )
    return parser


if __name__ == "__main__":
    from capsule_edge.evaluation._module import run_module

    run_module(main)
