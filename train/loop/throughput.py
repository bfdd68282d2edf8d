"""Measure whether the input pipeline keeps up with the training step, interleaved on this machine.

    python -m capsule_edge.train.loop.throughput --data DIR --architecture mobilenet_v2 --size 160 --batch 64

The output is one line of JSON. ``decode_frames_per_s`` is the rate of decoding and preprocessing into the
cache, which is done once. The other figures are medians of ``--rounds`` rounds, measured in turn: ``batch_s``
is the time of a batch from the pipeline alone, ``step_s`` of a training step on a batch in memory, ``fed_s``
of a step on a batch from the pipeline. ``ratio`` is ``batch_s / step_s``: below 1 the pipeline keeps up.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from capsule_edge.evaluation.datasets import Dataset, load_dataset

from ..config import TrainConfig
from ..data import batches, cached_frames, colours_of, draw_epoch, draw_mixing, draw_weights
from ..models import architectures
from .keras_training import label_loop

__all__ = ["measure"]

_WARM_UP_STEPS = 2


def measure(dataset: Dataset, config: TrainConfig, *, steps: int, rounds: int) -> dict[str, Any]:
    """Return the figures above and what they were measured on.

    Args:
        dataset: the frames to decode and to train on.
        config: architecture, input size and batch size.
        steps: batches in a round.
        rounds: number of rounds.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        started = time.perf_counter()
        frames = cached_frames(dataset, dataset.labels, config.input, Path(folder))
        decoded = len(frames) / (time.perf_counter() - started)
        model = architectures.build(
            config.architecture, size=config.size, labels=len(dataset.labels), keras=tf_keras
        )
        chances, rate = draw_weights(frames, config), tf.constant(1e-5)
        colours = colours_of(frames, config)
        loop = label_loop(model, frames, config, chances)
        numbers = itertools.count()

        def fresh_batches(count: int) -> Any:
            epoch = next(numbers)
            drawn = draw_epoch(chances, config.size, config, epoch, count, colours)
            return batches(frames, drawn, draw_mixing(config, epoch, count))

        item = next(iter(fresh_batches(1)))
        ways: dict[str, Callable[[Any], object]] = {
            "batch_s": lambda _: None,
            "step_s": lambda _: float(loop.step(item, rate)),
            "fed_s": lambda fed: float(loop.step(fed, rate)),
        }
        taken: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(_WARM_UP_STEPS):
            float(loop.step(item, rate))
        for _ in range(rounds):
            for name, act in ways.items():
                source = [item] * steps if name == "step_s" else fresh_batches(steps)
                taken[name].append(_time(act, source) / steps)
    return {
        **_figures(taken),
        "decode_frames_per_s": round(decoded, 1),
        "frames": len(dataset.samples),
        "architecture": config.architecture,
        "size": config.size,
        "batch": config.batch,
        "cpus": os.cpu_count(),
    }


def _time(act: Callable[[Any], object], source: Iterable[Any]) -> float:
    """Return the seconds that ``act`` takes on all items of ``source``."""
    begun = time.perf_counter()
    for item in source:
        act(item)
    return time.perf_counter() - begun


def _figures(taken: dict[str, list[float]]) -> dict[str, float]:
    """Return the medians and the two ratios."""
    figures = {name: float(np.median(values)) for name, values in taken.items()}
    return {
        **{name: round(value, 5) for name, value in figures.items()},
        "ratio": round(figures["batch_s"] / figures["step_s"], 4),
        "fed_to_step": round(float(np.median(np.divide(taken["fed_s"], taken["step_s"]))), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--frames", type=int, default=1000, help="number of frames, spread over the data set")
    parser.add_argument("--architecture", default=TrainConfig.architecture)
    parser.add_argument("--size", type=int, default=TrainConfig.size)
    parser.add_argument("--batch", type=int, default=TrainConfig.batch)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    dataset = load_dataset(options.data, split="all")
    dataset = dataset.take(
        np.linspace(0, len(dataset.samples) - 1, min(options.frames, len(dataset.samples))).astype(int)
    )
    config = TrainConfig(architecture=options.architecture, size=options.size, batch=options.batch)
    print(json.dumps(measure(dataset, config, steps=options.steps, rounds=options.rounds)))


if __name__ == "__main__":
    main()
