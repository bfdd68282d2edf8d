"""Measure model files for ``capsule-edge bench``: one document, schema ``capsule-edge/bench/1``.

Every file runs on every named backend that reads its format. Latency is measured in pairs that take turns (A B, B A).
Only the two models of a pair are open at a time, because a workstation calls one model again and again: with more
models in turn, each call finds its weights evicted from the processor's cache. An INT8 file is paired with its FP32
twin on the same backend, every other file with the first entry. The ratios within pairs are the point of the document:
other work on the machine slows both sides alike.
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
    """The extent of what ``run_bench`` measures.

    Attributes:
        threads: numbers of threads per call; latency is measured with each.
        batches: frames per call; throughput is measured with each.
        streams: numbers of threads that call the model at once; throughput is measured with each.
        rounds: calls of each file per latency measurement, at least 40.
        throughput_rounds: rounds of the throughput measurement, at least 1.
        starts: fresh processes per file; 0 leaves cold start and memory out.

    Raises:
        UsageError: a number is below its minimum, or a list is empty.
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
                f"rounds are {self.rounds} (at least 40), throughput rounds {self.throughput_rounds} (at least 1),"
                f" starts {self.starts} (at least 0)"
            )


def run_bench(
    models: Sequence[Path],
    backends: Sequence[str],
    options: BenchOptions,
    *,
    report: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Measure latency, throughput, cold start and memory of every model on every backend that reads it.

    Args:
        models: model files.
        backends: names of backends.
        options: how much to measure.
        report: called with a line of progress before each part.

    Returns:
        The document: ``schema``, ``machine``, ``options`` and ``entries``, one for each model on each backend. The
        ``ratio`` of a latency is relative to the entry that ``reference`` names.

    Raises:
        ModelError: a file is missing or is not a model file.
        BackendError: a backend is unknown, not installed or does not read the file.
    """
    opened = open_each(models, backends, threads=1)
    entries = [_describe(model) for model in opened]
    references = [_find_reference(opened, index) for index in range(len(opened))]
    for threads in options.threads:
        report(f"latency, {threads} thread{'s' * (threads > 1)}")
        rows = _measure_latency(opened, references, threads, options.rounds)
        for entry, reference, row in zip(entries, references, rows, strict=True):
            named = {name: entries[reference][name] for name in ("file", "backend")}
            entry["latency"].append({"threads": threads, "reference": named, **row})
    report("throughput")
    throughput = measure_throughput(
        opened, batches=options.batches, streams=options.streams, rounds=options.throughput_rounds
    )
    for entry, rows in zip(entries, throughput, strict=True):
        entry["throughput"] = rows
    subjects = [(model.path, model.name) for model in opened]
    for model in opened:
        model.close()
    if options.starts:
        report("cold starts")
        for entry, start in zip(entries, measure_startup(subjects, rounds=options.starts), strict=True):
            entry["startup"] = start
    return {"schema": SCHEMA, "machine": describe_machine(), "options": _to_json(options), "entries": entries}


def _find_reference(models: Sequence[Backend], index: int) -> int:
    """Return the index of the entry that ``index`` is paired with: its FP32 twin, else 0."""

    def identity(model: Backend) -> tuple[str, str, int]:
        return model.name, model.spec.name, model.spec.input.size

    if index and models[index].spec.precision == "int8":
        for at, other in enumerate(models):
            if other.spec.precision == "fp32" and identity(other) == identity(models[index]):
                return at
    return 0


def _measure_latency(
    models: Sequence[Backend], references: Sequence[int], threads: int, rounds: int
) -> list[dict[str, Any]]:
    """Measure one frame on each model, in turns with the model's reference.

    The row of the first model comes from the first pair in which it is the reference.
    """
    if len(models) == 1:
        return _measure_turns(models, threads, rounds)
    rows: dict[int, dict[str, Any]] = {}
    for index, reference in list(enumerate(references))[1:]:
        first, rows[index] = _measure_turns([models[reference], models[index]], threads, rounds)
        if reference == 0:
            rows.setdefault(0, first)
    return [rows[index] for index in range(len(models))]


def _measure_turns(models: Sequence[Backend], threads: int, rounds: int) -> list[dict[str, Any]]:
    """Open the models with ``threads``, measure them in turns and summarise the rounds from the first steady one."""
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


def _to_json(options: BenchOptions) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in vars(options).items()}
