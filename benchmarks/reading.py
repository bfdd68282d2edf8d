"""Whole recordings read in a fresh process: time, core time and the memory that it held.

    python -m capsule_edge.benchmarks.reading RECORDING... [--model M] [--backend NAME] [--cores 2] [--gate]
        [--written] [--plot memory.png]

Several recordings are read at once, each by a thread, with one model. Opening the model does not count. ``--written``
does all that ``run`` does, with its journal, files and report, in a folder that is thrown away; without it nothing is
written. ``--plot`` looks at the memory four times a second (Linux) and draws it. Ends in one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np

from capsule_edge.runtime.errors import BackendError, OutputError, UsageError
from capsule_edge.runtime.inference import find_format, open_model, readers_of
from capsule_edge.runtime.preprocessing import THRESHOLD
from capsule_edge.runtime.reader import Reader
from capsule_edge.runtime.results import open_run, write_study
from capsule_edge.runtime.study import Study

from .machine import describe_machine, limit_cores, memory_now, peak_memory

__all__ = ["Trace", "find_view", "read_afresh", "read_at_once", "trace_memory"]

_INTERVAL_S = 0.25

# Rows of seconds since the start, MB (10**6 bytes) in all, and MB without pages of libraries and files.
Trace = list[tuple[float, float, float]]


def read_at_once(
    recordings: Sequence[Path],
    *,
    model: Path | str | None,
    backend: str,
    cores: int,
    gated: bool = False,
    written: bool = False,
    answers: Path | None = None,
) -> dict[str, Any]:
    """``frames`` of all recordings, ``seconds``, ``core_s`` and ``peak_mb`` (10**6 bytes; None where not told).

    ``answers`` is where the probabilities of the first recording go, as NPY; none where a frame has none of its own.
    Raises as ``Reader`` does.
    """

    def read(recording: Path) -> Study:
        gate = THRESHOLD if gated else None
        if not written:
            return reader.read(recording, gate=gate)
        with tempfile.TemporaryDirectory() as folder, open_run(Path(folder) / "out") as run:
            study = reader.read(recording, gate=gate, journal=run.journal)
            write_study(study, run.folder, timing={}, colours=study.colours)
            run.journal.discard()
            return study

    with Reader.open(model, backend=backend, threads=cores) as reader:
        core, began = time.process_time(), time.perf_counter()
        if len(recordings) == 1:
            studies = [read(recordings[0])]
        else:
            with ThreadPoolExecutor(len(recordings)) as pool:
                studies = list(pool.map(read, recordings))
        seconds, core = time.perf_counter() - began, time.process_time() - core
    if answers is not None:
        found = [frame.probabilities for frame in studies[0].frames if frame.probabilities is not None]
        if len(found) == len(studies[0].frames):
            np.save(answers, np.stack(found))
    frames = sum(len(study.frames) for study in studies)
    peak = peak_memory()
    return {
        "recordings": len(recordings),
        "cores": cores,
        "frames": frames,
        "duplicates": sum(study.ledger.duplicate for study in studies),
        "events": sum(len(study.events) for study in studies),
        "seconds": round(seconds, 3),
        "core_s": round(core, 3),
        "frames_per_s": round(frames / seconds, 1),
        "peak_mb": None if peak is None else round(peak / 1e6, 1),
    }


def read_afresh(
    recordings: Sequence[Path],
    *,
    model: Path | str | None,
    backend: str = "onnxruntime",
    cores: int,
    gated: bool = False,
    written: bool = False,
    answers: Path | None = None,
) -> dict[str, Any]:
    """The same in a process of its own. Raises ``BackendError`` with what that complains of."""
    words = [sys.executable, "-m", __name__, *map(str, recordings)]
    words += ["--backend", backend, "--cores", str(cores)]
    if model is not None:
        words += ["--model", str(model)]
    words += ["--gate"] * gated + ["--written"] * written
    if answers is not None:
        words += ["--answers", str(answers)]
    done = subprocess.run(
        words, capture_output=True, text=True, encoding="utf-8", errors="replace", check=False
    )
    if done.returncode != 0:
        said = done.stderr.strip().splitlines()
        raise BackendError(f"a fresh process cannot read: {said[-1] if said else done.returncode}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {name: value for name, value in found.items() if name not in ("benchmark", "machine")}


def find_view(video: Path, model: Path) -> dict[str, Any]:
    """The model's input size and the field of view that ours finds in the recording."""
    opened = open_model(model, backend=readers_of(find_format(model))[0], threads=1)
    with Reader(opened) as reader:
        source = reader.read(video, every=1_000_000).source
        box = source.field_of_view
        whole = (0, 0, source.width, source.height)
        found = whole if box is None else (box.left, box.top, box.width, box.height)
        return {"size": reader.spec.input.size, "box": found}


@contextmanager
def trace_memory() -> Iterator[Trace]:
    """What this process holds meanwhile, a row four times a second. Raises ``UsageError`` where the system does not
    tell.
    """
    if memory_now() is None:
        raise UsageError("memory over time is read from /proc, which this system does not have")
    trace: Trace = []
    began, over = time.perf_counter(), Event()

    def look() -> None:
        while True:
            held = memory_now()
            if held is not None:
                whole, own = (round(one / 1e6, 1) for one in held)
                trace.append((round(time.perf_counter() - began, 2), whole, own))
            if over.wait(_INTERVAL_S):
                return

    watcher = Thread(target=look, name="memory")
    watcher.start()
    try:
        yield trace
    finally:
        over.set()
        watcher.join()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m capsule_edge.benchmarks.reading", description=__doc__)
    parser.add_argument("recordings", nargs="+", type=Path)
    parser.add_argument("--model", help="a file, or standard or small, which come with the package")
    parser.add_argument("--backend", default="onnxruntime")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--gate", action="store_true", help="pass over frames that are near-identical")
    parser.add_argument("--written", action="store_true", help="with journal, files and report")
    parser.add_argument("--answers", type=Path, help="NPY file for the first recording's probabilities")
    parser.add_argument("--plot", type=Path, help="draw the memory over the run as PNG (needs matplotlib)")
    options = parser.parse_args(arguments)
    limit_cores(options.cores)

    def read() -> dict[str, Any]:
        return read_at_once(
            options.recordings,
            model=options.model,
            backend=options.backend,
            cores=options.cores,
            gated=options.gate,
            written=options.written,
            answers=options.answers,
        )

    if options.plot is None:
        found = read()
    else:
        with trace_memory() as trace:
            found = read()
        from .plots import plot_memory

        try:
            options.plot.write_bytes(plot_memory(trace, found))
        except OSError as error:
            raise OutputError(f"{options.plot} cannot be written: {error.strerror or error}") from None
        found["own_mb"] = max(own for *_, own in trace)
    print(json.dumps({"benchmark": "reading", "machine": describe_machine(), **found}))


if __name__ == "__main__":
    from capsule_edge.evaluation._module import run_module

    run_module(main)
