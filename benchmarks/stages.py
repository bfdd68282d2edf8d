"""Where the time of reading goes, and how much of what the stages allow the whole reaches.

    python -m capsule_edge.benchmarks.stages exam.mp4 [MODEL] [--cores 2] [--rounds 3]

Core time of each stage on its own (the processor's time of one thread, so other programs count only through the
caches they share) and of the whole pipeline, in turns. ``allowed`` is the frames a second that all stages together
allow on all cores; where the recording is one group of pictures (``runtime/groups.py``), no more than its one decoder
allows. ``cores_used`` says how many cores the machine gave, and ``reached_of_cores_given`` is the share of what
those allow. ``beside_ms_per_frame`` is what other steps take: the gate, which is off by default, finding the events of
the whole recording, and writing its files and report.
Ends in one line of JSON.
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
from typing import Any

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

# Pictures of one measurement of a stage: they are held in memory, 0.2 MB each.
_SAMPLE = 480


def measure(
    container: Container, backend: Backend, *, plan: Plan, rounds: int, frames: int
) -> dict[str, Any]:
    """Core milliseconds a frame of each stage and of the whole, medians over rounds, and the shares."""
    stages: dict[str, list[float]] = {"decode": [], "prepare": [], "infer": []}
    whole: list[float] = []
    used: list[float] = []
    speed: list[float] = []
    for _ in range(rounds):
        for name, value in _stages(container, backend, plan.batch).items():
            stages[name].append(value)
        began, busy = time.perf_counter(), time.process_time()
        with closing(answer_frames(container, range(frames), backend, plan)) as answers:
            done = sum(len(answered.frames) for answered in answers)
        seconds, busy = time.perf_counter() - began, time.process_time() - busy
        whole.append(busy / done * 1e3)
        used.append(busy / seconds)
        speed.append(done / seconds)
    each = {name: median(values) for name, values in stages.items()}
    total = sum(each.values())
    cores = plan.workers
    alone = each["decode"] if len(find_gops(container)) == 1 else 0.0
    allowed = 1e3 / max(alone, total / cores)
    given = min(float(cores), median(used))
    return {
        "core_ms_per_frame": {name: round(value, 3) for name, value in each.items()},
        "sum_of_stages_ms": round(total, 3),
        "whole_ms": round(median(whole), 3),
        "overhead": round(median(whole) / total - 1, 3),
        "cores_used": round(median(used), 2),
        "frames_per_s": round(median(speed), 1),
        "allowed_frames_per_s": round(allowed, 1),
        "reached": round(median(speed) / allowed, 3),
        "reached_of_cores_given": round(median(speed) / (1e3 / max(alone, total / given)), 3),
    }


def _stages(container: Container, backend: Backend, size: int) -> dict[str, float]:
    count = min(_SAMPLE, container.present)
    spec = backend.spec.input

    def timed(work: Callable[[], Any]) -> tuple[float, Any]:
        began = time.thread_time()
        result = work()
        return (time.thread_time() - began) / count * 1e3, result

    with closing(read_frames(container, range(count))) as frames:
        decode, held = timed(lambda: list(islice(frames, count)))

    def prepare_all() -> list[Any]:
        box, located = settle_field_of_view(held, spec)
        buffers = PixelBuffers()
        return [prepare(each, spec, buffers) for each in make_batches(located, size=size, field_of_view=box)]

    prepared, batches = timed(prepare_all)
    infer, _ = timed(lambda: deque((backend.run(pixels) for pixels in batches), maxlen=1))
    return {"decode": decode, "prepare": prepared, "infer": infer}


def _beside(recording: Path, container: Container, model: Path) -> dict[str, float]:
    """Core milliseconds a frame of what does not stand between a picture and its answer."""
    count = min(_SAMPLE, container.present)
    with tempfile.TemporaryDirectory() as folder, Reader.open(model, threads=1) as reader:
        with closing(read_frames(container, range(count))) as read:
            box, located = settle_field_of_view(list(islice(read, count)), reader.spec.input)
            held = list(located)
        study = reader.read(recording)
        spec, frames = reader.spec, study.frames
        distance_s = median_frame_distance(frames)
        work: dict[str, tuple[int, Callable[[], Any]]] = {
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
        found = {}
        for name, (of, step) in work.items():
            began = time.thread_time()
            step()
            found[name] = round((time.thread_time() - began) / of * 1e3, 4)
        return found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m capsule_edge.benchmarks.stages", description=__doc__)
    parser.add_argument("recording", type=Path)
    parser.add_argument("model", type=Path, nargs="?")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--batch", type=int, help="pictures; by default what a run begins with")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--frames", type=int, help="frames of the whole pipeline's turns; all by default")
    options = parser.parse_args(arguments)
    limit_cores(options.cores)
    container = scan(options.recording)
    model = options.model or default_model()
    backend = open_model(model, threads=1)
    document = measure(
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
    beside = _beside(options.recording, container, model)
    print(json.dumps({**about, **document, "beside_ms_per_frame": beside}))


if __name__ == "__main__":
    from capsule_edge.evaluation._module import run_module

    run_module(main)
