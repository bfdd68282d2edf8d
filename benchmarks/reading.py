"""Read whole recordings and measure wall time, core time and peak memory.

    python -m capsule_edge.benchmarks.reading RECORDING... [--model M] [--backend NAME] [--cores 2] [--gate]
        [--written] [--plot memory.png]

Several recordings are read at once, each by its own thread, with one model. Opening the model is not measured. With
``--written`` the command also writes what ``capsule-edge run`` writes (journal, files, report), into a folder that is
deleted at the end. ``--plot`` samples the memory four times per second (Linux) and draws it. The last line of output is
JSON.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np

from capsule_edge.runtime.errors import BackendError, UsageError
from capsule_edge.runtime.inference import find_format, open_model, readers_of
from capsule_edge.runtime.preprocessing import THRESHOLD
from capsule_edge.runtime.reader import Reader
from capsule_edge.runtime.results import open_run, write_study, write_whole
from capsule_edge.runtime.study import Study

from .machine import describe_machine, limit_cores, memory_now, peak_memory

__all__ = ["Trace", "find_view", "read_afresh", "read_at_once", "trace_memory"]

# Rows of seconds since the start, memory in MB (10**6 bytes), and memory without pages of libraries and files.
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
    """Read recordings at once in this process, and measure the reading.

    Args:
        recordings: files to read, each by its own thread.
        model: a model file, the name of an installed model, or None for the standard model.
        backend: name of the backend.
        cores: threads of the reader.
        gated: whether to skip near-duplicates.
        written: whether to write journal, files and report too, into a temporary folder.
        answers: NPY file for the probabilities of the first recording, float32 (frames, labels). It is not written if
            a frame has none (skipped or corrupt).

    Returns:
        ``recordings``, ``cores``, ``frames`` of all recordings, ``duplicates``, ``events``, wall ``seconds``,
        ``core_s``, ``frames_per_s``, and ``peak_mb`` (10**6 bytes; None if the system does not report it).

    Raises:
        CapsuleEdgeError: a recording or the model cannot be read, as ``Reader`` says.
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
    """Call ``read_at_once`` in a fresh process that is restricted to ``cores`` cores.

    Raises:
        BackendError: the process failed; the message has its last line.
    """
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
        complaint = done.stderr.strip().splitlines()
        reason = complaint[-1] if complaint else f"exit code {done.returncode}"
        raise BackendError(f"a fresh process cannot read: {reason}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {name: value for name, value in found.items() if name not in ("benchmark", "machine")}


def find_view(video: Path, model: Path) -> dict[str, Any]:
    """Return the model's input ``size`` and the ``box`` of the field of view: left, top, width, height in pixels.

    The box is the one that the reader finds in the recording, or the whole frame.
    """
    opened = open_model(model, backend=readers_of(find_format(model))[0], threads=1)
    with Reader(opened) as reader:
        source = reader.read(video, every=1_000_000).source
        box = source.field_of_view
        whole = (0, 0, source.width, source.height)
        found = whole if box is None else (box.left, box.top, box.width, box.height)
        return {"size": reader.spec.input.size, "box": found}


@contextmanager
def trace_memory(
    interval_s: float = 0.25, read: Callable[[], tuple[int, int] | None] = memory_now
) -> Iterator[Trace]:
    """Sample the memory of this process while the context is open.

    Args:
        interval_s: seconds between two samples.
        read: returns the memory as ``machine.memory_now`` does.

    Yields:
        The list that the samples are added to.

    Raises:
        UsageError: the system does not report memory.
    """
    if read() is None:
        raise UsageError("memory over time is read from /proc, which this system does not have")
    trace: Trace = []
    began, ended = time.perf_counter(), Event()

    def sample() -> None:
        while True:
            held = read()
            if held is not None:
                whole, own = (round(one / 1e6, 1) for one in held)
                trace.append((round(time.perf_counter() - began, 2), whole, own))
            if ended.wait(interval_s):
                return

    watcher = Thread(target=sample, name="memory")
    watcher.start()
    try:
        yield trace
    finally:
        ended.set()
        watcher.join()


def main(arguments: Sequence[str] | None = None) -> None:
    options = _make_parser().parse_args(arguments)
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

        write_whole(options.plot, plot_memory(trace, found))
        found["own_mb"] = max(own for *_, own in trace)
    print(json.dumps({"benchmark": "reading", "machine": describe_machine(), **found}))


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m capsule_edge.benchmarks.reading",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("recordings", nargs="+", type=Path, metavar="RECORDING", help="read at once")
    parser.add_argument("--model", help="model file or installed model (default: standard)")
    parser.add_argument("--backend", default="onnxruntime", help="inference engine (default: %(default)s)")
    parser.add_argument("--cores", type=int, default=2, help="cores to use (default: %(default)s)")
    parser.add_argument("--gate", action="store_true", help="skip near-duplicate frames")
    parser.add_argument("--written", action="store_true", help="write journal, files and report too")
    parser.add_argument("--answers", type=Path, help="NPY file for the probabilities of the first recording")
    parser.add_argument("--plot", type=Path, help="draw memory over time as a PNG file (needs matplotlib)")
    return parser


if __name__ == "__main__":
    from capsule_edge.evaluation._module import run_module

    run_module(main)
