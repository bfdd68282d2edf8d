"""Everything that ``capsule-edge bench`` measures of model files, as one document, schema ``capsule-edge/bench/1``.

Every file runs on every backend named that reads it. Latency is measured in pairs that take turns (A B A B), two models
open at a time, as a workstation calls one model again and again: among more of them each call finds its weights out of
the processor's cache. An INT8 file is paired with its FP32 twin on the same backend, all else with the first entry;
what the document is for are the ratios within pairs, on which what else the machine does falls alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from capsule_edge.runtime.errors import UsageError
from capsule_edge.runtime.inference import Backend, open_model

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

    ``ratio`` of a latency is to its ``reference``, which is an entry too. ``tell`` is called with what is being
    measured. Raises as ``open_model`` does.
    """
    opened = open_each(models, backends, threads=1)
    entries = [_describe(model) for model in opened]
    references = [_find_reference(opened, index) for index in range(len(opened))]
    for threads in options.threads:
        tell(f"latency, {threads} thread{'s' * (threads > 1)}")
        rows = _latency(opened, references, threads, options.rounds)
        for entry, reference, row in zip(entries, references, rows, strict=True):
            named = {name: entries[reference][name] for name in ("file", "backend")}
            entry["latency"].append({"threads": threads, "reference": named, **row})
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


def _find_reference(models: Sequence[Backend], index: int) -> int:
    """The entry that one is paired with: its FP32 twin, else the first."""
    mine = models[index]
    if index and mine.spec.precision == "int8":
        for at, other in enumerate(models):
            same = (other.name, other.spec.name, other.spec.input.size)
            if other.spec.precision == "fp32" and same == (mine.name, mine.spec.name, mine.spec.input.size):
                return at
    return 0


def _latency(
    models: Sequence[Backend], references: Sequence[int], threads: int, rounds: int
) -> list[dict[str, Any]]:
    """Of one frame, from the turns of each model with its reference; of the first, from the first such turns."""
    if len(models) == 1:
        return _measure_turns(models, threads, rounds)
    rows: dict[int, dict[str, Any]] = {}
    for index, reference in list(enumerate(references))[1:]:
        other, rows[index] = _measure_turns([models[reference], models[index]], threads, rounds)
        if reference == 0:
            rows.setdefault(0, other)
    return [rows[index] for index in range(len(models))]


def _measure_turns(models: Sequence[Backend], threads: int, rounds: int) -> list[dict[str, Any]]:
    """Rounds before the times have settled are left out."""
    again = [open_model(model.path, backend=model.name, threads=threads) for model in models]
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
