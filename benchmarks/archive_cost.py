"""Estimate the core-hours of large archives, and where one driver would stop scaling.

    python -m capsule_edge.benchmarks.archive_cost ARCHIVE OTHER --work DIR [--recordings 5000]

ARCHIVE and OTHER are two archives of the same recordings, read with the installed models ``standard`` and ``small``.
Three kinds of figures are put together:

- Reading: core time per frame of each stage, as ``benchmarks/results/stages.json`` and ``stages-small.json`` have it.
- The archive's own work: core time of this process for tables, comparison and samples of frames, measured on ARCHIVE
  and OTHER. Their recordings are short, so costs that grow with the frames are scaled by frames.
- The driver: recordings a second that it lists, hands out and records when workers answer at once (its limit), and
  rows a second that it adds to the manifest, each on disk.

An estimate multiplies them; nothing of that size was read. An examination has 57,600 frames (8 h at 2 a second). The
last line of the output is JSON.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from capsule_edge.archive.compare import compare_archives
from capsule_edge.archive.drift import SampleSetup, load_measures, sample_inputs
from capsule_edge.archive.manifest import READ_STATES, Lease, Manifest, Row
from capsule_edge.archive.reading import Done, Driver, ReadSetup
from capsule_edge.archive.sources import Recording, RecordingState
from capsule_edge.archive.tables import TableTask, write_batch
from capsule_edge.runtime.errors import CapsuleEdgeError, InputError
from capsule_edge.runtime.inference import default_model

from .machine import describe_machine, load_now
from .results import read_result

__all__ = ["estimate_archive", "measure_driver"]

EXAMINATION = 57_600
"""Frames of an examination: 8 hours at 2 frames a second."""

SIZES = (10_000, 100_000)
"""Numbers of examinations of the table."""

# Frames of a part of a long recording, as ``archive read`` divides it.
_PART = 4096
# Rows that the driver adds at once when results come fast.
_ROWS = 256


class _InstantEngine:
    """An engine whose workers answer at once: what remains is the driver's own time."""

    def __init__(self, slots: int) -> None:
        self._slots, self._ended = slots, list[tuple[int, Any]]()

    @property
    def slots(self) -> int:
        return self._slots

    @property
    def refusals(self) -> tuple[()]:
        return ()

    def submit(self, number: int, task: Any) -> None:
        ledger = dict.fromkeys(("container", "classified"), EXAMINATION)
        rest = dict.fromkeys(("duplicate", "corrupt", "missing", "skipped", "unread"), 0)
        done = Done(
            key=f"{number:064x}",
            state=RecordingState(1, 1),
            sha256=f"{number:064x}",
            ledger={**ledger, **rest, "truncated": False},
            suggestions=5,
            seconds=100.0,
        )
        self._ended.append((number, done))

    def wait(self, timeout_s: float) -> list[tuple[int, Any]]:
        ended, self._ended = self._ended, []
        return ended

    def close(self) -> None:
        pass


def measure_driver(work: Path, recordings: int, *, slots: int = 64) -> dict[str, float]:
    """Return the rates of one driver.

    Args:
        work: a folder for files of the measurement.
        recordings: number of recordings that it hands out; each is an empty file.
        slots: number of workers.

    Returns:
        ``recordings_per_s``, and ``rows_per_s`` of the manifest in batches of 256 rows and ``single_rows_per_s`` one
        by one.
    """
    source, out = work / "source", work / "driver"
    source.mkdir(parents=True)
    listed = []
    for number in range(recordings):
        path = source / f"{number}.mp4"
        path.touch()
        listed.append(Recording(str(path)))
    out.mkdir()
    manifest, lease = Manifest(out), Lease(out / "lease.json")
    manifest.begin()
    lease.take()
    setup = ReadSetup(out, "small", "0" * 64, "onnxruntime", {}, "0" * 64)
    driver = Driver(setup, _InstantEngine(slots), manifest, lease)
    begun_s = time.perf_counter()
    outcome = driver.read(listed)
    taken_s = time.perf_counter() - begun_s
    if outcome.read != recordings:
        raise InputError(f"the driver recorded {outcome.read} of {recordings} recordings")
    rows = list(manifest.rows())
    return {
        "recordings_per_s": round(recordings / taken_s, 1),
        "rows_per_s": round(_append(work / "batches", rows[: 40 * _ROWS], _ROWS), 1),
        "single_rows_per_s": round(_append(work / "single", rows[:200], 1), 1),
    }


def _append(folder: Path, rows: Sequence[Row], size: int) -> float:
    """Return the rows a second that a manifest takes in batches of a size."""
    manifest = Manifest(folder)
    manifest.begin()
    begun_s = time.perf_counter()
    for first in range(0, len(rows), size):
        manifest.append(rows[first : first + size])
    return len(rows) / (time.perf_counter() - begun_s)


def measure_archive_work(archive: Path, other: Path, work: Path, model: Path) -> dict[str, float]:
    """Return the core time of what an archive does besides reading, in seconds of this process.

    Returns:
        ``tables_s_per_1000_frames``, ``compare_s_per_recording`` and ``sample_s_per_recording``.
    """
    rows = [row for row in Manifest(archive).rows() if row.state in READ_STATES and row.key]
    frames = sum(row.frames or 0 for row in rows)
    keys = tuple(str(row.key) for row in rows)
    out = work / "tables"
    out.mkdir(parents=True)
    (out / "results").symlink_to(archive.absolute() / "results")
    tables = _core_s(lambda: write_batch(out, TableTask(1, rows[0].model_sha256, keys)))
    compare = _core_s(lambda: compare_archives(archive, other))
    tasks = load_measures(str(archive)).tasks
    setup = SampleSetup(work / "samples", str(model))
    sample = _core_s(lambda: [sample_inputs(setup, task) for task in tasks])
    return {
        "tables_s_per_1000_frames": round(1000 * tables / frames, 4),
        "compare_s_per_recording": round(compare / len(rows), 4),
        "sample_s_per_recording": round(sample / len(tasks), 4),
    }


def estimate_archive(
    stages: Mapping[str, Mapping[str, Any]], work: Mapping[str, float], driver: Mapping[str, float]
) -> dict[str, Any]:
    """Return the core-hours by model and size, and the workers that one driver keeps busy.

    Args:
        stages: the results of ``stages`` by model.
        work: what ``measure_archive_work`` returned.
        driver: what ``measure_driver`` returned.
    """
    beside = {
        "tables": work["tables_s_per_1000_frames"] * EXAMINATION / 1000,
        "compare": work["compare_s_per_recording"],
        "samples": work["sample_s_per_recording"],
    }
    models = {}
    for name, found in stages.items():
        spent = {**found["core_ms_per_frame"]}
        spent |= {stage: found["beside_ms_per_frame"][stage] for stage in ("events", "write")}
        seconds = {stage: ms * EXAMINATION / 1000 for stage, ms in spent.items()}
        task_s = sum(seconds.values()) / -(-EXAMINATION // _PART)
        models[name] = {
            "core_s_per_examination": {
                stage: round(value, 3) for stage, value in {**seconds, **beside}.items()
            },
            "core_hours": {
                str(size): round(size * sum({**seconds, **beside}.values()) / 3600, 1) for size in SIZES
            },
            "seconds_per_part": round(task_s, 2),
            "workers_of_one_driver": round(driver["recordings_per_s"] * task_s),
        }
    return models


def _core_s(do: Callable[[], object]) -> float:
    """Return the core time of a call, seconds of this process."""
    begun_s = time.process_time()
    do()
    return time.process_time() - begun_s


@contextmanager
def _folder(work: Path) -> Iterator[Path]:
    """Yield an empty folder below ``work``, and remove it."""
    folder = work / "archive-cost"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    """Measure, print the table, and print one line of JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("archive", type=Path, metavar="ARCHIVE")
    parser.add_argument("other", type=Path, metavar="OTHER")
    parser.add_argument("--work", type=Path, required=True, help="folder for files of the measurement")
    parser.add_argument("--recordings", type=int, default=5000, help="recordings that the driver hands out")
    options = parser.parse_args()
    results = Path(__file__).parent / "results"
    try:
        stages = {
            "standard": read_result(results / "stages.json").found,
            "small": read_result(results / "stages-small.json").found,
        }
        with _folder(options.work) as folder:
            driver = measure_driver(folder, options.recordings)
            work = measure_archive_work(options.archive, options.other, folder, default_model("standard"))
    except CapsuleEdgeError as error:
        sys.exit(f"error: {error}")
    models = estimate_archive(stages, work, driver)
    for name, found in models.items():
        print(
            f"{name}: {found['core_hours']} core-hours, one driver for {found['workers_of_one_driver']} workers"
        )
    document = {"models": models, "archive": work, "driver": driver}
    print(json.dumps({**document, "load": load_now(), "machine": describe_machine()}))


if __name__ == "__main__":
    main()
