"""Measure frames per second by batch size and number of streams.

A stream is a thread that calls the model with batches of its own. All streams share one model.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from capsule_edge.runtime.inference import Backend

__all__ = ["measure_throughput"]

_RESAMPLES = 1000


def measure_throughput(
    models: Sequence[Backend],
    *,
    batches: Sequence[int],
    streams: Sequence[int],
    rounds: int = 5,
    frames: int = 64,
) -> list[list[dict[str, Any]]]:
    """Measure every combination of batch size and number of streams.

    Models and combinations take turns within a round. One extra round before the first warms up and is not counted.

    Args:
        models: opened with one thread each.
        batches: numbers of frames per call.
        streams: numbers of threads that call at once.
        rounds: rounds whose median counts, at least 1.
        frames: frames per measurement; more if that is less than two batches for each stream.

    Returns:
        For each model one row per combination: ``batch``, ``streams``, ``frames_per_s`` and ``frames_per_s_95``, the
        95 % interval of the median by bootstrap over rounds.
    """
    combinations = [(batch, count) for batch in batches for count in streams]
    times = _time_rounds(models, combinations, rounds, frames)
    best = 1 / np.median(times, axis=0)
    drawn = np.random.default_rng(0).integers(0, rounds, (_RESAMPLES, rounds))
    low, high = np.percentile(1 / np.median(times[drawn], axis=1), [2.5, 97.5], axis=0)
    return [
        [
            {
                "batch": batch,
                "streams": count,
                "frames_per_s": round(float(best[index, at]), 1),
                "frames_per_s_95": [round(float(low[index, at]), 1), round(float(high[index, at]), 1)],
            }
            for at, (batch, count) in enumerate(combinations)
        ]
        for index in range(len(models))
    ]


def _time_rounds(
    models: Sequence[Backend], combinations: Sequence[tuple[int, int]], rounds: int, frames: int
) -> npt.NDArray[np.float64]:
    """Return seconds per frame, (rounds, models, combinations)."""
    rng = np.random.default_rng(0)
    times = np.empty((rounds, len(models), len(combinations)))
    with ThreadPoolExecutor(max(count for _, count in combinations)) as pool:
        for turn in range(-1, rounds):
            for at, (batch, count) in enumerate(combinations):
                calls = max(2 * count, -(-frames // batch))
                for index, model in enumerate(models):
                    side = model.spec.input.size
                    pixels = rng.integers(0, 256, (batch, side, side, 3), np.uint8)
                    seconds = _time_calls(pool, model, pixels, calls, count)
                    if turn >= 0:  # the first warms up
                        times[turn, index, at] = seconds / (calls * batch)
    return times


def _time_calls(
    pool: ThreadPoolExecutor, model: Backend, pixels: npt.NDArray[np.uint8], calls: int, streams: int
) -> float:
    """Return the seconds of ``calls`` calls. Each free stream takes the next call."""
    left = iter(range(calls))

    def work() -> None:
        # next() of a range's iterator is one step of the interpreter: no call is taken twice.
        for _ in left:
            model.run(pixels)

    started = time.perf_counter()
    for done in [pool.submit(work) for _ in range(streams)]:
        done.result()
    return time.perf_counter() - started
