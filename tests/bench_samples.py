"""Two small models, and results of ``bench`` about them."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

from tiny_model import write_tiny_model

from capsule_edge.benchmarks.bench import BenchOptions, run_bench

# Without cold starts: each takes two fresh processes.
QUICK = BenchOptions(rounds=40, throughput_rounds=1, starts=0)


def write_models(folder: Path) -> list[Path]:
    """Write two model files."""
    return [write_tiny_model(folder / name) for name in ("a.onnx", "b.onnx")]


def measure(files: list[Path]) -> dict[str, Any]:
    """Measure files in onnxruntime and OpenVINO."""
    return run_bench(files, ["onnxruntime", "openvino"], QUICK)


def changed(result: dict[str, Any], factor: float, *, entry: int = 1, width: float = 0.01) -> dict[str, Any]:
    """Return a copy of a result with made-up times.

    Every p50 is 4 ms and every ratio 1; those of one entry are multiplied by ``factor``. Intervals are +- ``width``
    (relative).
    """
    made = deepcopy(result)
    for at, one in enumerate(made["entries"]):
        for row in one["latency"]:
            times = factor if at == entry else 1
            row["p50_ms"], row["ratio"] = 4 * times, (1 if at == 0 else times)
            row["p50_95_ms"] = [row["p50_ms"] * (1 - width), row["p50_ms"] * (1 + width)]
            row["ratio_95"] = [1, 1] if at == 0 else [row["ratio"] * (1 - width), row["ratio"] * (1 + width)]
    return made
