"""Compare the latency of model files for one frame.

    python -m capsule_edge.benchmarks.latency MODEL... [--threads 1] [--backend NAME]... [--rounds 200]

Every file runs on each named backend that reads its format. A file that none of them reads is an error. The files take
turns within a round, in alternating order (A B, B A), so that other work on the machine slows all of them alike. Ratios
are to the first file. The last line of output is JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from capsule_edge.runtime.inference import BACKENDS, Backend, find_format, open_model

from .machine import describe_machine

__all__ = ["find_steady", "measure", "measure_both", "open_each", "summarise"]

Times = npt.NDArray[np.float64]


def measure(
    backends: Sequence[Backend], *, rounds: int = 200, warmup: int = 20, seed: int = 0, batch: int = 1
) -> Times:
    """Measure the wall time of a call of each backend in each round.

    Args:
        backends: opened models; they take turns within a round.
        rounds: number of rounds.
        warmup: calls of each backend before the first round, not measured.
        seed: of the random pixels.
        batch: frames per call.

    Returns:
        Seconds, float64 (rounds, backends).
    """
    return measure_both(backends, rounds=rounds, warmup=warmup, seed=seed, batch=batch)[0]


def measure_both(
    backends: Sequence[Backend], *, rounds: int = 200, warmup: int = 20, seed: int = 0, batch: int = 1
) -> tuple[Times, Times]:
    """Measure wall time as ``measure`` does, and the core time of all threads of this process.

    Other programs hardly influence the core time.

    Returns:
        Wall seconds and core seconds, each float64 (rounds, backends).
    """
    rng = np.random.default_rng(seed)
    frames = []
    for backend in backends:
        size = backend.spec.input.size
        frames.append(rng.integers(0, 256, (batch, size, size, 3), dtype=np.uint8))
    for backend, frame in zip(backends, frames, strict=True):
        for _ in range(warmup):
            backend.run(frame)
    wall, work = np.empty((2, rounds, len(backends)))
    for turn in range(rounds):
        order = range(len(backends)) if turn % 2 == 0 else reversed(range(len(backends)))
        for index in order:
            core, start = time.process_time(), time.perf_counter()
            backends[index].run(frames[index])
            wall[turn, index] = time.perf_counter() - start
            work[turn, index] = time.process_time() - core
    return wall, work


def find_steady(times: Times, *, block: int = 10) -> tuple[int, bool]:
    """Find the round from which the times are steady.

    The rounds are cut into blocks, and each block has a median. The second half of the blocks gives a centre (the
    median of its medians) and an allowed distance: three robust standard deviations (1.4826 MAD), but at least 3 % and
    at most 10 % of the centre. The times are steady from the first block on that lies, with its successor, within that
    distance in every column.

    Args:
        times: seconds, (rounds, columns).
        block: rounds per block.

    Returns:
        The first steady round and True. If no block of the first half is steady: the round at the half, and False. With
        fewer than four blocks: 0 and False.
    """
    blocks = len(times) // block
    if blocks < 4:
        return 0, False
    medians = np.median(times[: blocks * block].reshape(blocks, block, -1), axis=1)
    late = medians[blocks // 2 :]
    centre = np.median(late, axis=0)
    spread = np.clip(3 * 1.4826 * np.median(np.abs(late - centre), axis=0), 0.03 * centre, 0.1 * centre)
    settled = np.asarray((np.abs(medians - centre) <= spread).all(axis=1))
    for first in range(blocks // 2):
        if settled[first] and settled[first + 1]:
            return first * block, True
    return blocks // 2 * block, False


def summarise(times: Times, *, resamples: int = 1000, seed: int = 0) -> list[dict[str, Any]]:
    """Summarise the times of each column.

    Args:
        times: seconds, (rounds, columns).
        resamples: bootstrap samples of the intervals.
        seed: of the bootstrap.

    Returns:
        For each column ``p50_ms``, ``p90_ms``, ``p95_ms``, ``p99_ms``, ``min_ms``, ``jitter_ms`` (the robust standard
        deviation: 1.4826 times the median distance from the median) and ``ratio``, its median relative to that of the
        first column. ``p50_95_ms`` and ``ratio_95`` are 95 % intervals, bootstraps of medians over rounds. A disturbed
        round moves a median little, and in a ratio it disturbs both sides.
    """
    rng = np.random.default_rng(seed)
    medians = np.array(
        [np.median(times[rng.integers(0, len(times), len(times))], axis=0) for _ in range(resamples)]
    )
    ratios = medians / medians[:, :1]
    answer = []
    for index in range(times.shape[1]):
        column = times[:, index] * 1000
        found = {f"p{at}_ms": float(np.percentile(column, at)) for at in (50, 90, 95, 99)}
        found["min_ms"] = float(column.min())
        found["jitter_ms"] = 1.4826 * float(np.median(np.abs(column - np.median(column))))
        ratio = np.median(times[:, index]) / np.median(times[:, 0])
        answer.append(
            {
                **{name: round(value, 3) for name, value in found.items()},
                "p50_95_ms": _interval(medians[:, index] * 1000),
                "ratio": round(float(ratio), 4),
                "ratio_95": _interval(ratios[:, index]),
            }
        )
    return answer


def _interval(samples: npt.NDArray[np.float64]) -> list[float]:
    low, high = np.percentile(samples, [2.5, 97.5])
    return [round(float(low), 4), round(float(high), 4)]


def open_each(models: Sequence[Path], names: Sequence[str], *, threads: int) -> list[Backend]:
    """Open each model on each of the named backends that reads its format, in the order of the models.

    Args:
        models: model files.
        names: backends.
        threads: threads per call.

    Raises:
        ModelError: a file is missing or is not a model file.
        BackendError: a name is unknown, a backend is not installed, or none of ``names`` reads the file's format.
    """
    opened = []
    for path in models:
        fitting = [
            name
            for name in names
            if name in BACKENDS and path.is_file() and BACKENDS[name].reads == find_format(path)
        ]
        # If no backend fits, open_model of the first one raises the error that says why.
        unknown = [name for name in names if name not in BACKENDS]
        opened += [open_model(path, backend=name, threads=threads) for name in unknown + fitting or names[:1]]
    return opened


def main(arguments: Sequence[str] | None = None) -> None:
    options = _make_parser().parse_args(arguments)
    backends = open_each(options.models, options.backends or ["onnxruntime"], threads=options.threads)
    rows = summarise(measure(backends, rounds=options.rounds))
    for backend, row in zip(backends, rows, strict=True):
        print(
            f"{backend.path.name:28} {backend.name:11} p50 {row['p50_ms']:8.3f} ms"
            f"  p95 {row['p95_ms']:8.3f}  p99 {row['p99_ms']:8.3f}"
            f"  ratio {row['ratio']:.3f} [{row['ratio_95'][0]:.3f}, {row['ratio_95'][1]:.3f}]"
        )
    document = {
        "benchmark": "latency",
        "threads": options.threads,
        "rounds": options.rounds,
        "machine": describe_machine(),
        "models": [
            {
                "file": backend.path.name,
                "backend": backend.name,
                "precision": backend.spec.precision,
                "size": backend.spec.input.size,
                **row,
            }
            for backend, row in zip(backends, rows, strict=True)
        ],
    }
    print(json.dumps(document))


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m capsule_edge.benchmarks.latency",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "models", nargs="+", type=Path, metavar="MODEL", help="model files; ratios are to the first"
    )
    parser.add_argument(
        "--backend",
        action="append",
        dest="backends",
        metavar="NAME",
        help="inference engine; repeatable (default: onnxruntime)",
    )
    parser.add_argument("--threads", type=int, default=1, help="threads per call (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=200, help="calls of each file (default: %(default)s)")
    return parser


if __name__ == "__main__":
    from capsule_edge.evaluation._module import run_module

    run_module(main)
