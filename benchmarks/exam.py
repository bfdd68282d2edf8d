"""An examination from its file to its findings, beside what a user would write and OpenVINO without any decoding.

    python -m capsule_edge.benchmarks.exam exam.mp4 [--model small --model standard] [--fp32 FILE] [--rounds 3]

Ours reads the recording whole, with the gate and without. ``cv2-onnxruntime`` is the plain loop of ``peer_program``
with the same file, and with FP32 where it is given. ``openvino alone`` is the model with requests in flight, a core
each, on one batch of pixels over and over: no decoding, no preprocessing. Each turn is a process of its own on as many
cores; all take turns, and ratios are medians of pairs with the first row. Core time is the processor's, which other
programs hardly touch. Ends in one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from capsule_edge.runtime.backends import open_model
from capsule_edge.runtime.containers import scan
from capsule_edge.runtime.errors import BackendError, CapsuleEdgeError, UsageError
from capsule_edge.runtime.shipped import find_model

from .machine import describe_machine, load_now
from .peers import find_view

__all__ = ["Row", "measure_exam"]

_PROGRAM = Path(__file__).with_name("peer_program.py")

_OURS = """
import json, sys, time
from capsule_edge.benchmarks.machine import limit_cores
from capsule_edge.runtime.gate import THRESHOLD
from capsule_edge.runtime.reader import Reader
recording, model, cores, gated = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4] == "gated"
limit_cores(cores)
with Reader.open(model, threads=cores, autotune=False) as reader:
    core, began = time.process_time(), time.perf_counter()
    study = reader.read(recording, gate=THRESHOLD if gated else None)
    seconds, core = time.perf_counter() - began, time.process_time() - core
print(json.dumps({"frames": len(study.frames), "seconds": seconds, "core_s": core,
                  "duplicates": study.ledger.duplicate, "events": len(study.events)}))
"""

# As OpenVINO's own benchmark does: requests in flight on streams of one core each.
_ALONE = """
import json, sys, time
import numpy as np, openvino as ov
from capsule_edge.benchmarks.machine import limit_cores
model, cores, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
limit_cores(cores)
core = ov.Core()
options = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_NUM_THREADS": cores, "NUM_STREAMS": str(cores)}
compiled = core.compile_model(core.read_model(model), "CPU", options)
frames = np.random.default_rng(1).integers(0, 256, (8, size, size, 3), np.uint8)
queue = ov.AsyncInferQueue(compiled)
def turn(count):
    for _ in range(count):
        queue.start_async({0: frames})
    queue.wait_all()
turn(20)
busy, began, count = time.process_time(), time.perf_counter(), 0
while time.perf_counter() - began < 3:
    turn(20)
    count += 20 * len(frames)
seconds, busy = time.perf_counter() - began, time.process_time() - busy
print(json.dumps({"frames": count, "seconds": seconds, "core_s": busy}))
"""


@dataclass
class Row:
    """One way, with a model file: a result (``frames``, ``seconds``, ``core_s``) for each round."""

    name: str
    file: str
    words: Sequence[str]
    results: list[dict[str, Any]] = field(default_factory=list)

    def tell(self, first: Row) -> dict[str, Any]:
        """Medians, and the ratio of frames a second and of core time to the first row's."""
        speeds, theirs = self._speeds(), first._speeds()
        core, other = self._core_ms(), first._core_ms()
        last = self.results[-1]
        kept: dict[str, Any] = {name: last[name] for name in ("duplicates", "events") if name in last}
        return {
            "name": self.name,
            "file": self.file,
            "frames_per_s": round(median(speeds), 1),
            "ratio": round(median(a / b for a, b in zip(speeds, theirs, strict=True)), 3),
            "core_ms": round(median(core), 3),
            "core_ratio": round(median(b / a for a, b in zip(core, other, strict=True)), 3),
            "cores_used": round(median(one["core_s"] / one["seconds"] for one in self.results), 2),
            **kept,
        }

    def _speeds(self) -> list[float]:
        return [one["frames"] / one["seconds"] for one in self.results]

    def _core_ms(self) -> list[float]:
        return [1000 * one["core_s"] / one["frames"] for one in self.results]


def measure_exam(
    recording: Path,
    *,
    models: Sequence[str] = ("small", "standard"),
    fp32: Path | None = None,
    cores: int = 2,
    rounds: int = 3,
    tell: Callable[[str], None] = lambda _: None,
) -> list[dict[str, Any]]:
    """The rows, the first model without the gate first. ``ratio`` above 1 is faster than it.

    Raises ``InputError`` and ``ModelError`` as reading does, ``BackendError`` for a way that fails.
    """
    if rounds < 1 or cores < 1:
        raise UsageError(f"rounds is {rounds} and cores {cores}, allowed are 1 or more")
    frames = scan(recording).present
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in [*models, *([str(fp32)] if fp32 else [])]:
            path = Path(find_model(name))
            backend = open_model(path, threads=1)
            precision = backend.spec.precision
            backend.close()
            view = find_view(recording, path)
            if name in models:
                for gate in ("ungated", "gated"):
                    words = ["-c", _OURS, str(recording), str(path), str(cores), gate]
                    rows.append(Row(f"capsule-edge, {gate}", path.name, words))
                words = ["-c", _ALONE, str(path), str(cores), str(view["size"])]
                rows.append(Row("openvino alone", path.name, words))
            out = f"{folder}/answers.npy"
            plain = [str(_PROGRAM), "cv2-onnxruntime", str(recording), str(path), str(cores)]
            rows.append(Row(f"cv2-onnxruntime, {precision}", path.name, [*plain, json.dumps(view), out]))
        for turn in range(rounds):
            for row in rows:
                tell(f"round {turn + 1} of {rounds}: {row.name}, {row.file}")
                row.results.append(_call(row.words))
    return [{"of": frames, **row.tell(rows[0])} for row in rows]


def _call(words: Sequence[str]) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, *words],
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    if done.returncode != 0:
        said = done.stderr.strip().splitlines()
        raise BackendError(f"a process of the benchmark failed: {said[-1] if said else done.returncode}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m capsule_edge.benchmarks.exam", description=__doc__)
    parser.add_argument("recording", type=Path)
    parser.add_argument("--model", action="append", dest="models")
    parser.add_argument("--fp32", type=Path)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(arguments)
    before = load_now()
    rows = measure_exam(
        options.recording,
        models=options.models or ("small", "standard"),
        fp32=options.fp32,
        cores=options.cores,
        rounds=options.rounds,
        tell=lambda line: print(line, file=sys.stderr, flush=True),
    )
    machine = {**describe_machine(), "load_before": before}
    print(json.dumps({"benchmark": "exam", "cores": options.cores, "machine": machine, "rows": rows}))


if __name__ == "__main__":
    try:
        main()
    except CapsuleEdgeError as error:
        raise SystemExit(f"error: {error}") from None
