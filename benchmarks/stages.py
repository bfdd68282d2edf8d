"""Measure the time of each stage of reading, and compare the whole pipeline with the sum of its stages.

    python -m capsule_edge.benchmarks.stages exam.mp4 [MODEL] [--cores 2] [--rounds 3]

Each stage is measured on its own in core time (processor time of one thread; other programs influence it only through
shared caches). The stages and the whole pipeline take turns. The last line of output is JSON with these figures:

- ``allowed_frames_per_s``: the rate at which all cores, without a pause, would do the work of all stages. If the
  recording is a single closed GOP, one decoder has to read it, and its rate is the limit.
- ``reached``: the measured rate relative to that.
- ``cores_used``: the cores that the machine gave; ``reached_of_cores_given`` is relative to what those allow.
- ``beside_ms_per_frame``: core time of three other steps: the near-duplicate filter (``gate``, off by default), finding
  all events, and writing files and report.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

from capsule_edge.runtime.events import find_events, median_frame_distance
from capsule_edge.runtime.inference import Backend, default_model, open_model
from capsule_edge.runtime.pipeline import Plan, answer_frames
from capsule_edge.runtime.preprocessing import (
    THRESHOLD,
    PixelBuffers,
    make_batches,
    mark_duplicates,
    prepare,
    settle_field_of_view,
)
from capsule_edge.runtime.reader import Reader
from capsule_edge.runtime.recording import Container, find_gops, read_frames, scan
from capsule_edge.runtime.results import write_study

from .machine import describe_machine, limit_cores

__all__ = ["measure"]

# Frames per measurement of a stage. They are held in memory, 0.2 MB each.
_SAMPLE = 480

_T = TypeVar("_T")


def measure(
    container: Container, backend: Backend, *, plan: Plan, rounds: int, frames: int
) -> dict[str, Any]:
    """Measure the stages and the whole pipeline in turns.

    Args:
        container: the recording.
        backend: the model, opened with one thread.
        plan: workers and batch size of the pipeline.
        rounds: rounds whose median counts.
        frames: frames that the pipeline reads in each round.

    Returns:
        The figures of the module's docstring; times are core milliseconds per frame.
    """
    stages: dict[str, list[float]] = {"decode": [], "prepare": [], "infer": []}
    wholes = []
    for _ in range(rounds):
        for name, value in _measure_stages(container, backend, plan.batch).items():
            stages[name].append(value)
        wholes.append(_measure_pipeline(container, backend, plan, frames))
    whole_ms, used, speed = (median(values) for values in zip(*wholes, strict=True))
    each = {name: median(values) for name, values in stages.items()}
    total = sum(each.values())
    alone = each["decode"] if len(find_gops(container)) == 1 else 0.0
    allowed = 1e3 / max(alone, total / plan.workers)
    given = 1e3 / max(alone, total / min(float(plan.workers), used))
    return {
        "core_ms_per_frame": {name: round(value, 3) for name, value in each.items()},
        "sum_of_stages_ms": round(total, 3),
        "whole_ms": round(whole_ms, 3),
        "overhead": round(whole_ms / total - 1, 3),
        "cores_used": round(used, 2),
        "frames_per_s": round(speed, 1),
        "allowed_frames_per_s": round(allowed, 1),
        "reached": round(speed / allowed, 3),
        "reached_of_cores_given": round(speed / given, 3),
    }


def _measure_pipeline(
    container: Container, backend: Backend, plan: Plan, frames: int
) -> tuple[float, float, float]:
    """Return core milliseconds per frame, cores used, and frames per second of the whole pipeline."""
    began, busy = time.perf_counter(), time.process_time()
    with closing(answer_frames(container, range(frames), backend, plan)) as answers:
        done = sum(len(answered.frames) for answered in answers)
    seconds, busy = time.perf_counter() - began, time.process_time() - busy
    return busy / done * 1e3, busy / seconds, done / seconds


def _measure_stages(container: Container, backend: Backend, batch: int) -> dict[str, float]:
    """Return core milliseconds per frame of each stage on its own."""
    count = min(_SAMPLE, container.present)
    spec = backend.spec.input
    with closing(read_frames(container, range(count))) as frames:
        decode, held = _core_ms(count, lambda: list(islice(frames, count)))

    def prepare_all() -> list[Any]:
        box, located = settle_field_of_view(held, spec)
        buffers = PixelBuffers()
        batches = make_batches(located, size=batch, field_of_view=box)
        return [prepare(each, spec, buffers) for each in batches]

    prepared, inputs = _core_ms(count, prepare_all)
    infer, _ = _core_ms(count, lambda: deque((backend.run(pixels) for pixels in inputs), maxlen=1))
    return {"decode": decode, "prepare": prepared, "infer": infer}


def _measure_beside(recording: Path, container: Container, model: Path) -> dict[str, float]:
    """Return core milliseconds per frame of the steps that no answer waits for."""
    count = min(_SAMPLE, container.present)
    with tempfile.TemporaryDirectory() as folder, Reader.open(model, threads=1) as reader:
        with closing(read_frames(container, range(count))) as read:
            box, located = settle_field_of_view(list(islice(read, count)), reader.spec.input)
            held = list(located)
        study = reader.read(recording)
        spec, frames = reader.spec, study.frames
        distance_s = median_frame_distance(frames)
        steps: dict[str, tuple[int, Callable[[], Any]]] = {
            "gate": (count, lambda: deque(mark_duplicates(held, THRESHOLD, field_of_view=box), maxlen=1)),
            "events": (
                len(frames),
                lambda: find_events(
                    frames, spec, median_distance_s=distance_s, time_kind=container.time_kind
                ),
            ),
            "write": (
                len(frames),
                lambda: write_study(study, Path(folder), timing={}, colours=study.colours),
            ),
        }
        return {name: round(_core_ms(of, step)[0], 4) for name, (of, step) in steps.items()}


def _core_ms(frames: int, work: Callable[[], _T]) -> tuple[float, _T]:
    """Do ``work`` and return its core milliseconds per frame, and its result."""
    began = time.thread_time()
    result = work()
    return (time.thread_time() - began) / frames * 1e3, result


def main(arguments: Sequence[str] | None = None) -> None:
    options = _make_parser().parse_args(arguments)
    limit_cores(options.cores)
    container = scan(options.recording)
    model = options.model or default_model()
    backend = open_model(model, threads=1)
    figures = measure(
        container,
        backend,
        plan=Plan(options.cores, options.batch or Plan.fit(options.cores, backend.spec.input.size).batch),
        rounds=options.rounds,
        frames=min(options.frames or container.present, container.present),
    )
    about = {
        "benchmark": "stages",
        "model": model.name,
        "size": backend.spec.input.size,
        "cores": options.cores,
        "machine": describe_machine(),
    }
    beside = _measure_beside(options.recording, container, model)
    print(json.dumps({**about, **figures, "beside_ms_per_frame": beside}))


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m capsule_edge.benchmarks.stages",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("recording", type=Path, help="recording to read")
    parser.add_argument("model", type=Path, nargs="?", help="model file (default: the standard model)")
    parser.add_argument("--cores", type=int, default=2, help="cores to use (default: %(default)s)")
    parser.add_argument("--batch", type=int, help="frames per batch (default: as in a run)")
    parser.add_argument(
        "--rounds", type=int, default=3, help="rounds whose median counts (default: %(default)s)"
    )
    parser.add_argument(
        "--frames", type=int, help="frames that the whole pipeline reads per round (default: all)"
    )
    return parser


if __name__ == "__main__":
    from capsule_edge.evaluation._module import run_module

    run_module(main)
