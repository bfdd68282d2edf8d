"""Frames a second by batch size and streams: threads that call one model at once, each with batches of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

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
    advance: Callable[[], None] = lambda: None,
) -> list[list[dict[str, Any]]]:
    """For each model (opened with one thread) a row of ``batch``, ``streams``, ``frames_per_s`` for every combination.

    Some ``frames`` go through in each round, at least two batches for each stream; models and combinations take turns
    and the median round counts. ``frames_per_s_95`` is a bootstrap of that median over rounds.
    """
    rng = np.random.default_rng(0)
    combinations = [(batch, count) for batch in batches for count in streams]
    times = np.empty((rounds, len(models), len(combinations)))
    with ThreadPoolExecutor(max(streams)) as pool:
        for turn in range(-1, rounds):
            for at, (batch, count) in enumerate(combinations):
                calls = max(2 * count, -(-frames // batch))
                for index, model in enumerate(models):
                    side = model.spec.input.size
                    pixels = rng.integers(0, 256, (batch, side, side, 3), np.uint8)
                    seconds = _time(pool, model, pixels, calls, count)
                    if turn >= 0:  # the first warms up
                        times[turn, index, at] = seconds / (calls * batch)
                advance()
    best = 1 / np.median(times, axis=0)
    drawn = rng.integers(0, rounds, (_RESAMPLES, rounds))
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


def _time(pool: ThreadPoolExecutor, model: Backend, pixels: Any, calls: int, streams: int) -> float:
    """Seconds of ``calls`` calls, shared out to ``streams`` threads as they come free."""
    left = iter(range(calls))

    def work() -> None:
        # next() of a range's iterator is one step of the interpreter: no call is taken twice.
        for _ in left:
            model.run(pixels)

    started = time.perf_counter()
    for done in [pool.submit(work) for _ in range(streams)]:
        done.result()
    return time.perf_counter() - started
