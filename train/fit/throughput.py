"""Is the pipeline as fast as the step that it feeds? Measured interleaved on this machine, one line of JSON.

    python -m capsule_edge.train.fit.throughput --data DIR --architecture mobilenet_v2 --size 160 --batch 64

``decode_frames_per_s`` is reading and preprocessing into the cache, which is done once. ``batch_s`` is a batch from the
pipeline alone, ``step_s`` a training step on a batch that is there, ``fed_s`` a step with the pipeline in front of it:
medians of ``--rounds`` rounds in turn. ``ratio`` is ``batch_s / step_s``: below 1 the pipeline keeps up.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from capsule_edge.evaluation.datasets import Dataset, load_dataset
from capsule_edge.runtime.inference import InputSpec

from ..config import TrainConfig
from ..data import batches, cached_frames, colours_of, draw_epoch, draw_mixing, draw_weights
from ..models import architectures
from .fp32 import label_fit

__all__ = ["measure"]

_WARM = 2


def measure(dataset: Dataset, config: TrainConfig, *, steps: int, rounds: int) -> dict[str, Any]:
    """The figures above, of ``rounds`` rounds of ``steps`` batches each, and what they were measured on."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        started = time.perf_counter()
        frames = cached_frames(dataset, dataset.labels, InputSpec(config.size), Path(folder))
        decoded = len(frames) / (time.perf_counter() - started)
        model = architectures.build(
            config.architecture, size=config.size, labels=len(dataset.labels), keras=tf_keras
        )
        chances, rate = draw_weights(frames, config), tf.constant(1e-5)
        colours = colours_of(frames, config)
        fit = label_fit(model, frames, config, chances)
        numbers = itertools.count()

        def fresh(count: int) -> Any:
            epoch = next(numbers)
            drawn = draw_epoch(chances, config.size, config, epoch, count, colours)
            return batches(frames, drawn, draw_mixing(config, epoch, count))

        item = next(iter(fresh(1)))
        ways: dict[str, Callable[[Any], object]] = {
            "batch_s": lambda _: None,
            "step_s": lambda _: float(fit.step(item, rate)),
            "fed_s": lambda fed: float(fit.step(fed, rate)),
        }
        taken: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(_WARM):
            float(fit.step(item, rate))
        for _ in range(rounds):
            for name, act in ways.items():
                source = [item] * steps if name == "step_s" else fresh(steps)
                begun = time.perf_counter()
                for fed in source:
                    act(fed)
                taken[name].append((time.perf_counter() - begun) / steps)
        figures = {name: float(np.median(values)) for name, values in taken.items()}
    return {
        **{name: round(value, 5) for name, value in figures.items()},
        "ratio": round(figures["batch_s"] / figures["step_s"], 4),
        "fed_to_step": round(float(np.median(np.divide(taken["fed_s"], taken["step_s"]))), 3),
        "decode_frames_per_s": round(decoded, 1),
        "frames": len(dataset.samples),
        "architecture": config.architecture,
        "size": config.size,
        "batch": config.batch,
        "cpus": os.cpu_count(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--frames", type=int, default=1000, help="of the data set, evenly taken")
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
