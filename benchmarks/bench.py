"""Everything that ``capsule-edge bench`` measures of model files, as one document, schema ``capsule-edge/bench/1``.

Every file runs on every backend named that reads it. All of them take turns throughout (A B A B), so that what else
the machine does falls on all alike; what the document is for are the ratios to its first entry.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from capsule_edge.runtime.backends import Backend, open_model
from capsule_edge.runtime.errors import UsageError

from .latency import find_steady, measure_both, open_each, summarise
from .machine import describe_machine
from .startup import measure_startup
from .throughput import measure_throughput

__all__ = ["SCHEMA", "BenchOptions", "run_bench"]

SCHEMA = "capsule-edge/bench/1"


@dataclass(frozen=True)
class BenchOptions:
    """How much is measured. ``threads`` of a single call, ``streams`` of calls at once; ``starts`` of fresh processes.

    Raises ``UsageError`` for numbers that measure nothing.
    """

    threads: tuple[int, ...] = (1,)
    batches: tuple[int, ...] = (1, 16)
    streams: tuple[int, ...] = (1, 2)
    rounds: int = 200
    throughput_rounds: int = 5
    starts: int = 5

    def __post_init__(self) -> None:
        for name in ("threads", "batches", "streams"):
            values = getattr(self, name)
            if not values or min(values) < 1:
                raise UsageError(f"{name} are {list(values)}, allowed are numbers from 1")
        if self.rounds < 40 or self.throughput_rounds < 1 or self.starts < 0:
            raise UsageError(
                f"rounds are {self.rounds} of latency, {self.throughput_rounds} of throughput and {self.starts} starts,"
                " allowed are at least 40, 1 and 0"
            )


def run_bench(
    models: Sequence[Path],
    backends: Sequence[str],
    options: BenchOptions,
    *,
    tell: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Latency at each number of threads, throughput, cold start and memory of every model on every backend.

    ``tell`` is called with what is being measured. Raises as ``open_model`` does.
    """
    opened = open_each(models, backends, threads=1)
    entries = [_describe(model) for model in opened]
    for threads in options.threads:
        tell(f"latency, {threads} thread{'s' * (threads > 1)}")
        for entry, row in zip(entries, _latency(opened, threads, options.rounds), strict=True):
            entry["latency"].append({"threads": threads, **row})
    tell("throughput")
    found = measure_throughput(
        opened, batches=options.batches, streams=options.streams, rounds=options.throughput_rounds
    )
    for entry, rows in zip(entries, found, strict=True):
        entry["throughput"] = rows
    subjects = [(model.path, model.name) for model in opened]
    for model in opened:
        model.close()
    if options.starts:
        tell("cold starts")
        for entry, start in zip(entries, measure_startup(subjects, rounds=options.starts), strict=True):
            entry["startup"] = start
    return {"schema": SCHEMA, "machine": describe_machine(), "options": _told(options), "entries": entries}


def _latency(opened: Sequence[Backend], threads: int, rounds: int) -> list[dict[str, Any]]:
    """Of one frame; rounds before the times have settled are left out."""
    again = [open_model(model.path, backend=model.name, threads=threads) for model in opened]
    wall, work = measure_both(again, rounds=rounds)
    start, steady = find_steady(wall)
    for model in again:
        model.close()
    rows, cores = summarise(wall[start:]), summarise(work[start:])
    for index, (row, core) in enumerate(zip(rows, cores, strict=True)):
        row |= {"core_ms": core["p50_ms"], "core_ratio": core["ratio"], "core_ratio_95": core["ratio_95"]}
        row |= {"steady": steady, "rounds": len(wall) - start}
        row["times_ms"] = [round(float(seconds) * 1000, 4) for seconds in wall[start:, index]]
    return rows


def _describe(model: Backend) -> dict[str, Any]:
    return {
        "file": model.path.name,
        "sha256": model.sha256,
        "bytes": model.path.stat().st_size,
        "name": model.spec.name,
        "version": model.spec.version,
        "precision": model.spec.precision,
        "size": model.spec.input.size,
        "backend": model.name,
        "latency": [],
        "throughput": [],
        "startup": None,
    }


def _told(options: BenchOptions) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in vars(options).items()}
