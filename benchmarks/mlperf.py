"""MLPerf inference scenarios with the loadgen of MLCommons (``mlcommons_loadgen``, the extra ``[mlperf]``).

    python -m capsule_edge.benchmarks.mlperf MODEL --data frames --out logs [--scenario SingleStream]...
        [--backend NAME] [--threads 1] [--seconds 60] [--limit N]

Each scenario runs twice, for performance and for accuracy, over preprocessed frames in memory, as MLPerf has it.
loadgen's own logs stay in ``out/<scenario>/<mode>/``; accuracy is worked out from its log, not from what we answered. A
run under 600 s is shorter than MLPerf's rules ask, and no result of ours is submitted or verified. Ends in one line of
JSON.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from capsule_edge.evaluation.classification import check_labels, load_frames
from capsule_edge.evaluation.datasets import Dataset, load_dataset
from capsule_edge.runtime.errors import InputError, OutputError, PackageError, UsageError
from capsule_edge.runtime.inference import Backend, open_model

from .machine import describe_machine

__all__ = ["FIGURES", "SCENARIOS", "read_accuracy", "read_summary", "run_scenario"]

SCENARIOS = ("SingleStream", "MultiStream", "Offline")
# What loadgen calls each scenario's figure.
FIGURES = {
    "SingleStream": "90.0th percentile latency (ns)",
    "MultiStream": "99.0th percentile latency (ns)",
    "Offline": "Samples per second",
}
MODES = ("performance", "accuracy")
# MLPerf's own for MultiStream.
_PER_QUERY = 8
_BATCH = 16

Mode = Literal["performance", "accuracy"]
Frames = npt.NDArray[np.uint8]


class _System:
    """The system under test: answers loadgen's queries with a model, keeping the first error for the caller.

    An error that left the callback would end the process, so queries are answered with nothing once there is one.
    """

    def __init__(self, model: Backend, frames: Frames, pool: ThreadPoolExecutor) -> None:
        self._model, self._frames, self._pool = model, frames, pool
        self.error: Exception | None = None

    def issue(self, samples: Sequence[Any]) -> None:
        """A query: up to a batch is answered at once, more are shared out to the pool."""
        if len(samples) <= _BATCH:
            self._answer(samples)
            return
        list(
            self._pool.map(self._answer, (samples[at : at + _BATCH] for at in range(0, len(samples), _BATCH)))
        )

    def flush(self) -> None:
        """Nothing is kept back."""

    def _answer(self, samples: Sequence[Any]) -> None:
        import mlperf_loadgen as lg

        rows = np.zeros((len(samples), len(self._model.spec.labels)), np.float32)
        if self.error is None:
            try:
                rows = np.ascontiguousarray(
                    self._model.run(self._frames[[sample.index for sample in samples]]).probabilities
                )
            except Exception as error:
                self.error = error
        # loadgen copies what it logs before this returns.
        lg.QuerySamplesComplete(
            [
                lg.QuerySampleResponse(sample.id, row.ctypes.data, row.nbytes)
                for sample, row in zip(samples, rows, strict=True)
            ]
        )


def run_scenario(
    model: Backend,
    frames: Frames,
    folder: Path,
    *,
    scenario: str,
    mode: Mode,
    seconds: float,
    workers: int = 1,
) -> dict[str, str]:
    """Run one scenario and leave loadgen's logs in ``folder``; the summary of a performance run (``read_summary``).

    ``workers`` threads call the model at once in Offline. Raises what the model raises, ``UsageError`` for a
    scenario that is not known, ``OutputError`` for a folder that cannot be made.
    """
    import mlperf_loadgen as lg

    if scenario not in SCENARIOS:
        raise UsageError(f"scenario is {scenario!r}, allowed is one of {', '.join(SCENARIOS)}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder} cannot be made: {error.strerror or error}") from None
    settings = lg.TestSettings()
    settings.scenario = getattr(lg.TestScenario, scenario)
    settings.mode = lg.TestMode.PerformanceOnly if mode == "performance" else lg.TestMode.AccuracyOnly
    settings.min_duration_ms = int(seconds * 1000)
    settings.min_query_count = 1
    settings.multi_stream_samples_per_query = _PER_QUERY
    if scenario == "Offline":
        # loadgen makes a query of what this many would need for the time, and 10 % more.
        settings.offline_expected_qps = _guess_rate(model, frames) * workers
    log = lg.LogSettings()
    log.log_output.outdir = str(folder)
    log.log_output.copy_summary_to_stdout = False
    log.enable_trace = False
    with ThreadPoolExecutor(workers) as pool:
        system = _System(model, frames, pool)
        under_test = lg.ConstructSUT(system.issue, system.flush)
        library = lg.ConstructQSL(len(frames), len(frames), lambda _: None, lambda _: None)
        try:
            lg.StartTestWithLogSettings(under_test, library, settings, log)
        finally:
            lg.DestroyQSL(library)
            lg.DestroySUT(under_test)
    if system.error is not None:
        raise system.error
    # Of an accuracy run loadgen sums up nothing.
    return read_summary(folder / "mlperf_log_summary.txt") if mode == "performance" else {}


def read_summary(path: Path) -> dict[str, str]:
    """Every ``name: value`` of loadgen's summary. Raises ``InputError`` where there is none."""
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from None
    found = dict(re.findall(r"^[ *]*([^:\n]+?) *: +(\S.*?) *$", text, re.MULTILINE))
    if not found:
        raise InputError(f"{path} holds no summary")
    return found


def read_accuracy(path: Path, samples: int, labels: int) -> npt.NDArray[np.float32]:
    """The probabilities that loadgen logged, float32 (samples, labels), each sample once.

    Raises ``InputError`` for a log that lacks a sample or holds something else.
    """
    try:
        entries = json.loads(path.read_text("utf-8"))
        rows = {int(one["qsl_idx"]): np.frombuffer(bytes.fromhex(one["data"]), np.float32) for one in entries}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is no accuracy log of loadgen: {error}") from None
    if sorted(rows) != list(range(samples)) or {row.shape for row in rows.values()} != {(labels,)}:
        raise InputError(f"{path} has {len(rows)} answers, needed are {samples} of {labels} numbers each")
    return np.stack([rows[index] for index in range(samples)])


def _guess_rate(model: Backend, frames: Frames) -> float:
    batch = frames[np.arange(_BATCH) % len(frames)]
    model.run(batch)
    started = time.perf_counter()
    model.run(batch)
    return _BATCH / (time.perf_counter() - started)


def _score(probabilities: npt.NDArray[np.float32], dataset: Dataset, keys: Sequence[str]) -> dict[str, float]:
    truth = np.array([keys.index(sample.label) for sample in dataset.samples])
    found = probabilities.argmax(axis=1)
    scores = []
    for label in np.unique(truth):
        hit = np.count_nonzero((found == label) & (truth == label))
        scores.append(2 * hit / (np.count_nonzero(found == label) + np.count_nonzero(truth == label)))
    return {"accuracy": float(np.mean(found == truth)), "macro_f1": float(np.mean(scores))}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m capsule_edge.benchmarks.mlperf", description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="labelled frames")
    parser.add_argument("--split", help="rows of labels.csv, val where there are such")
    parser.add_argument("--out", type=Path, required=True, help="folder for loadgen's logs")
    parser.add_argument(
        "--scenario", action="append", help=f"one of {', '.join(SCENARIOS)}; all where none is given"
    )
    parser.add_argument("--backend", default="onnxruntime")
    parser.add_argument("--threads", type=int, default=1, help="of a call; in Offline, calls at once")
    parser.add_argument("--seconds", type=float, default=60.0, help="least duration of a performance run")
    parser.add_argument("--limit", type=int, help="only the first frames")
    options = parser.parse_args(arguments)
    if find_spec("mlperf_loadgen") is None:
        raise PackageError("mlcommons_loadgen is not installed", hint="pip install 'capsule-edge[mlperf]'")
    if options.threads < 1 or not options.seconds > 0 or (options.limit is not None and options.limit < 1):
        raise UsageError(
            f"threads are {options.threads}, seconds {options.seconds}, limit {options.limit}; all must be above 0"
        )
    dataset = load_dataset(options.data, split=options.split)
    if options.limit:
        dataset = dataset.take(range(min(options.limit, len(dataset.samples))))
    results = []
    for scenario in options.scenario or SCENARIOS:
        # A call that may use several threads, or several calls of one.
        offline = scenario == "Offline"
        model = open_model(options.model, backend=options.backend, threads=1 if offline else options.threads)
        check_labels(dataset, model.spec.keys)
        dataset, frames = load_frames(dataset, model.spec.input)
        entry: dict[str, Any] = {"scenario": scenario, "frames": len(frames)}
        for mode in MODES:
            folder = options.out / scenario / mode
            summary = run_scenario(
                model,
                frames,
                folder,
                scenario=scenario,
                mode=mode,  # type: ignore[arg-type]
                seconds=options.seconds,
                workers=options.threads if offline else 1,
            )
            if mode == "performance":
                entry["valid"] = summary.get("Result is") == "VALID"
                entry["summary"] = summary
            else:
                logged = read_accuracy(
                    folder / "mlperf_log_accuracy.json", len(frames), len(model.spec.labels)
                )
                entry |= _score(logged, dataset, model.spec.keys)
        model.close()
        results.append(entry)
        print(f"{scenario:13} {_headline(entry)}")
    document = {
        "benchmark": "mlperf",
        "model": options.model.name,
        "backend": options.backend,
        "threads": options.threads,
        "seconds": options.seconds,
        "machine": describe_machine(),
        "results": results,
    }
    print(json.dumps(document))


def _headline(entry: dict[str, Any]) -> str:
    summary = entry["summary"]
    name = FIGURES[entry["scenario"]]
    verdict = "valid" if entry["valid"] else "not valid (too short, or the log says why)"
    scores = f"accuracy {entry['accuracy']:.4f}, macro-F1 {entry['macro_f1']:.4f}"
    return f"{name} {summary.get(name, 'not told')}, {verdict}; {scores}"


if __name__ == "__main__":
    from capsule_edge.evaluation._module import run_module

    run_module(main)
