"""Run MLPerf's inference scenarios with MLCommons' loadgen (``mlcommons_loadgen``, the extra ``mlperf``).

    python -m capsule_edge.benchmarks.mlperf MODEL --data frames --out logs [--scenario SingleStream]...
        [--backend NAME] [--threads 1] [--seconds 60] [--limit N]

Each scenario runs twice, for performance and for accuracy, over preprocessed frames in memory, as MLPerf prescribes.
loadgen's logs stay in ``logs/SCENARIO/MODE/``. The accuracy is computed from loadgen's log, not from our own answers.
MLPerf's rules ask for runs of 600 s or more, and no result here is submitted or verified. The last line of output is
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

__all__ = ["FIGURES", "SCENARIOS", "read_accuracy", "read_summary", "run_scenario", "score"]

Mode = Literal["performance", "accuracy"]

SCENARIOS = ("SingleStream", "MultiStream", "Offline")
# The figure of each scenario, as loadgen's summary names it.
FIGURES = {
    "SingleStream": "90.0th percentile latency (ns)",
    "MultiStream": "99.0th percentile latency (ns)",
    "Offline": "Samples per second",
}
MODES: tuple[Mode, ...] = ("performance", "accuracy")
# Frames per query of MultiStream, as MLPerf prescribes.
_PER_QUERY = 8
_BATCH = 16

Frames = npt.NDArray[np.uint8]


class _System:
    """The system under test: it answers loadgen's queries with a model.

    An exception that left loadgen's callback would end the process. The first one is therefore kept in ``error`` for
    the caller, and all further queries are answered with zeros.
    """

    def __init__(self, model: Backend, frames: Frames, pool: ThreadPoolExecutor) -> None:
        self._model, self._frames, self._pool = model, frames, pool
        self.error: Exception | None = None

    def issue(self, samples: Sequence[Any]) -> None:
        """Answer a query: up to one batch directly, a larger query in batches by the pool."""
        if len(samples) <= _BATCH:
            self._answer(samples)
            return
        list(
            self._pool.map(self._answer, (samples[at : at + _BATCH] for at in range(0, len(samples), _BATCH)))
        )

    def flush(self) -> None:
        """Do nothing: no query is delayed."""

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
        # loadgen copies the rows before this returns.
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
    """Run one scenario and write loadgen's logs.

    Args:
        model: opened model.
        frames: preprocessed frames, uint8 (frames, size, size, 3).
        folder: folder for the logs; it is made.
        scenario: one of ``SCENARIOS``.
        mode: ``performance`` or ``accuracy``.
        seconds: least duration of a performance run.
        workers: threads that call the model at once in Offline.

    Returns:
        The summary of a performance run (``read_summary``); empty for an accuracy run.

    Raises:
        UsageError: the scenario is unknown.
        OutputError: the folder cannot be made.
        CapsuleEdgeError: the model's first error.
    """
    import mlperf_loadgen as lg

    if scenario not in SCENARIOS:
        raise UsageError(f"scenario is {scenario!r}, allowed is one of {', '.join(SCENARIOS)}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder} cannot be made: {error.strerror or error}") from None
    settings = _make_settings(scenario, mode, seconds)
    if scenario == "Offline":
        # loadgen sends one query, with as many frames as this rate needs for the duration, and 10 % more.
        settings.offline_expected_qps = _estimate_rate(model, frames) * workers
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
    # loadgen writes no summary of an accuracy run.
    return read_summary(folder / "mlperf_log_summary.txt") if mode == "performance" else {}


def _make_settings(scenario: str, mode: Mode, seconds: float) -> Any:
    import mlperf_loadgen as lg

    settings = lg.TestSettings()
    settings.scenario = getattr(lg.TestScenario, scenario)
    settings.mode = lg.TestMode.PerformanceOnly if mode == "performance" else lg.TestMode.AccuracyOnly
    settings.min_duration_ms = int(seconds * 1000)
    settings.min_query_count = 1
    settings.multi_stream_samples_per_query = _PER_QUERY
    return settings


def read_summary(path: Path) -> dict[str, str]:
    """Read every ``name: value`` of loadgen's summary.

    Raises:
        InputError: the file cannot be read or holds no summary.
    """
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from None
    found = dict(re.findall(r"^[ *]*([^:\n]+?) *: +(\S.*?) *$", text, re.MULTILINE))
    if not found:
        raise InputError(f"{path} holds no summary")
    return found


def read_accuracy(path: Path, samples: int, labels: int) -> npt.NDArray[np.float32]:
    """Read the probabilities that loadgen logged.

    Args:
        path: loadgen's accuracy log.
        samples: number of frames.
        labels: number of labels.

    Returns:
        Probabilities, float32 (samples, labels).

    Raises:
        InputError: the file is no accuracy log, or does not hold every sample.
    """
    try:
        entries = json.loads(path.read_text("utf-8"))
        rows = {int(one["qsl_idx"]): np.frombuffer(bytes.fromhex(one["data"]), np.float32) for one in entries}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is no accuracy log of loadgen: {error}") from None
    if sorted(rows) != list(range(samples)) or {row.shape for row in rows.values()} != {(labels,)}:
        raise InputError(f"{path} has {len(rows)} answers, needed are {samples} of {labels} numbers each")
    return np.stack([rows[index] for index in range(samples)])


def _estimate_rate(model: Backend, frames: Frames) -> float:
    """Return frames per second of one call with a full batch."""
    batch = frames[np.arange(_BATCH) % len(frames)]
    model.run(batch)
    started = time.perf_counter()
    model.run(batch)
    return _BATCH / (time.perf_counter() - started)


def score(probabilities: npt.NDArray[np.float32], dataset: Dataset, keys: Sequence[str]) -> dict[str, float]:
    """Return ``accuracy`` and ``macro_f1`` of the probabilities of a data set's samples.

    Args:
        probabilities: float32 (samples, labels).
        dataset: the samples, in the same order.
        keys: label keys of the columns.
    """
    truth = np.array([keys.index(sample.label) for sample in dataset.samples])
    found = probabilities.argmax(axis=1)
    f1 = []
    for label in np.unique(truth):
        hit = np.count_nonzero((found == label) & (truth == label))
        f1.append(2 * hit / (np.count_nonzero(found == label) + np.count_nonzero(truth == label)))
    return {"accuracy": float(np.mean(found == truth)), "macro_f1": float(np.mean(f1))}


def main(arguments: Sequence[str] | None = None) -> None:
    options = _make_parser().parse_args(arguments)
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
        # Offline makes several calls of one thread at once, the others one call of several threads.
        offline = scenario == "Offline"
        model = open_model(options.model, backend=options.backend, threads=1 if offline else options.threads)
        entry = _run_both_modes(
            model,
            dataset,
            options.out / scenario,
            scenario=scenario,
            seconds=options.seconds,
            workers=options.threads if offline else 1,
        )
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


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m capsule_edge.benchmarks.mlperf",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("model", type=Path, help="model file")
    add("--data", type=Path, required=True, help="folder of labelled frames")
    add("--split", help="value of the column split (default: val, if there is one)")
    add("--out", type=Path, required=True, help="folder for loadgen's logs")
    add("--scenario", action="append", help=f"one of {', '.join(SCENARIOS)}; repeatable (default: all)")
    add("--backend", default="onnxruntime", help="inference engine (default: %(default)s)")
    add(
        "--threads",
        type=int,
        default=1,
        help="threads per call; in Offline, calls at once (default: %(default)s)",
    )
    add(
        "--seconds",
        type=float,
        default=60.0,
        help="least duration of a performance run (default: %(default)s)",
    )
    add("--limit", type=int, help="use only the first LIMIT frames")
    return parser


def _run_both_modes(
    model: Backend, dataset: Dataset, folder: Path, *, scenario: str, seconds: float, workers: int
) -> dict[str, Any]:
    """Run a scenario for performance and for accuracy, and return its entry of the document."""
    check_labels(dataset, model.spec.keys)
    dataset, frames = load_frames(dataset, model.spec.input)
    summary, _ = (
        run_scenario(
            model, frames, folder / mode, scenario=scenario, mode=mode, seconds=seconds, workers=workers
        )
        for mode in MODES
    )
    logged = read_accuracy(
        folder / "accuracy" / "mlperf_log_accuracy.json", len(frames), len(model.spec.labels)
    )
    return {
        "scenario": scenario,
        "frames": len(frames),
        "valid": summary.get("Result is") == "VALID",
        "summary": summary,
        **score(logged, dataset, model.spec.keys),
    }


def _headline(entry: dict[str, Any]) -> str:
    summary = entry["summary"]
    name = FIGURES[entry["scenario"]]
    verdict = "valid" if entry["valid"] else "not valid (too short, or the log says why)"
    scores = f"accuracy {entry['accuracy']:.4f}, macro-F1 {entry['macro_f1']:.4f}"
    return f"{name} {summary.get(name, 'not in the summary')}, {verdict}; {scores}"


if __name__ == "__main__":
    from capsule_edge.evaluation._module import run_module

    run_module(main)
