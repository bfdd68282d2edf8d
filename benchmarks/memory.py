"""How much memory a run holds, from its start to its end: flat, however long the recording.

    python -m capsule_edge.benchmarks.memory RECORDING... [--model small] [--plot memory.png]

Each recording is read by ``capsule-edge run`` in a process of its own, files and report included, and looked at four
times a second: what it holds in all, and of that its own memory, without the pages of libraries and files. Linux only.
Ends in one line of JSON; MiB.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from capsule_edge.runtime.containers import scan
from capsule_edge.runtime.errors import BackendError, UsageError

from .machine import describe_machine

__all__ = ["Trace", "measure_memory", "plot_memory"]

_RUN = "from capsule_edge.cli.main import main; main()"
_INTERVAL_S = 0.25
_FIELDS = ("VmRSS", "RssAnon")

# Rows of seconds since the start, MiB in all, MiB of the process's own.
Trace = list[tuple[float, float, float]]


def measure_memory(recording: Path, *, model: str = "standard") -> dict[str, Any]:
    """``frames``, ``seconds``, ``peak_mib`` (the system's own count), ``own_mib`` (most seen) and the ``trace``.

    Raises ``UsageError`` where the system does not tell, ``BackendError`` for a run that fails.
    """
    if not Path("/proc/self/status").exists():
        raise UsageError("memory over time is read from /proc, which this system does not have")
    frames = scan(recording).present
    trace: Trace = []
    peak = 0.0
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile("w+") as errors:
        words = [
            sys.executable,
            "-c",
            _RUN,
            "run",
            str(recording),
            "--model",
            model,
            "--out",
            f"{folder}/out",
        ]
        began = time.perf_counter()
        with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=errors) as child:
            while child.poll() is None:
                if (seen := _look(child.pid)) is not None:
                    trace.append((round(time.perf_counter() - began, 2), seen["VmRSS"], seen["RssAnon"]))
                    peak = seen["VmHWM"]
                time.sleep(_INTERVAL_S)
            code = child.returncode
        seconds = time.perf_counter() - began
        errors.seek(0)
        said = errors.read().strip()
    if code not in (0, 3):
        raise BackendError(
            f"reading {recording} failed: {said.splitlines()[-1] if said else f'exit code {code}'}"
        )
    return {
        "recording": recording.name,
        "frames": frames,
        "seconds": round(seconds, 1),
        "peak_mib": peak,
        "own_mib": max((own for *_, own in trace), default=0.0),
        "trace": trace,
    }


def plot_memory(results: Sequence[dict[str, Any]], path: Path, *, model: str) -> None:
    """All traces over the share of their time. Needs matplotlib."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4), layout="constrained")
    for at, result in enumerate(results):
        share = [100 * second / result["seconds"] for second, *_ in result["trace"]]
        label = f"{result['frames']:,} frames, {result['seconds']:.0f} s"
        axes.plot(share, [whole for _, whole, _ in result["trace"]], color=f"C{at}", label=label)
        axes.plot(share, [own for *_, own in result["trace"]], color=f"C{at}", linestyle=":")
    axes.axhline(250, color="grey", linewidth=0.8)
    axes.set(
        xlabel="share of the run, %",
        ylabel="memory, MiB",
        title=f"capsule-edge run, {model} model (dotted: without pages of libraries and files)",
        ylim=(0, None),
    )
    axes.legend(fontsize="small", loc="lower right")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _look(process: int) -> dict[str, float] | None:
    """MiB by name; None for a process that has just ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text("utf-8").splitlines()
        fields = dict(line.split(":", 1) for line in lines)
        return {name: round(int(fields[name].split()[0]) / 1024, 1) for name in (*_FIELDS, "VmHWM")}
    except (OSError, KeyError):
        return None


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m capsule_edge.benchmarks.memory", description=__doc__)
    parser.add_argument("recordings", type=Path, nargs="+")
    parser.add_argument("--model", default="standard")
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args(arguments)
    results = []
    for recording in options.recordings:
        results.append(measure_memory(recording, model=options.model))
        shown = {name: value for name, value in results[-1].items() if name != "trace"}
        print(json.dumps(shown), file=sys.stderr, flush=True)
    if options.plot is not None:
        plot_memory(results, options.plot, model=options.model)
    document = {
        "benchmark": "memory",
        "model": options.model,
        "machine": describe_machine(),
        "results": results,
    }
    print(json.dumps(document))


if __name__ == "__main__":
    from capsule_edge.evaluation._module import run_module

    run_module(main)
