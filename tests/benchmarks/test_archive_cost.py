"""The estimate of core-hours multiplies what was measured; the driver is measured with instant workers."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("pyarrow")
pytest.importorskip("duckdb")

from capsule_edge.benchmarks.archive_cost import EXAMINATION, estimate_archive, measure_driver

STAGES = {
    "small": {
        "core_ms_per_frame": {"decode": 1.0, "prepare": 0.5, "infer": 0.25},
        "beside_ms_per_frame": {"gate": 9.0, "events": 0.125, "write": 0.125},
    }
}


def test_core_hours_are_the_sum_of_the_stages() -> None:
    work = {
        "tables_s_per_1000_frames": 0.5,
        "compare_s_per_recording": 1.0,
        "sample_s_per_recording": 0.2,
    }
    found = estimate_archive(STAGES, work, {"recordings_per_s": 100.0})["small"]
    # 57,600 frames of 2 ms; the near-duplicate filter is off by default and does not count.
    reading_s = EXAMINATION * 2 / 1000
    spent = found["core_s_per_examination"]
    assert sum(spent[stage] for stage in ("decode", "prepare", "infer", "events", "write")) == pytest.approx(
        reading_s
    )
    whole_s = reading_s + 28.8 + 1.2
    assert found["core_hours"] == {
        "10000": pytest.approx(10_000 * whole_s / 3600, abs=0.1),
        "100000": pytest.approx(100_000 * whole_s / 3600, abs=0.1),
    }
    # An examination is read in 15 parts of at most 4,096 frames.
    assert found["seconds_per_part"] == pytest.approx(reading_s / 15, abs=0.01)
    assert found["workers_of_one_driver"] == round(100 * reading_s / 15)


def test_the_driver_records_every_recording(tmp_path: Path) -> None:
    found = measure_driver(tmp_path, 300)
    assert min(found.values()) > 0
    # Rows that are added together share a file, so they are faster than one by one.
    assert found["rows_per_s"] > found["single_rows_per_s"]
