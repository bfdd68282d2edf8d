"""The number of cores: affinity, and quotas of control groups in a made-up file system."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from capsule_edge.runtime import cores
from capsule_edge.runtime.cores import bounded_threads, count_cores, quota_cores
from capsule_edge.runtime.errors import ModelError
from capsule_edge.runtime.inference.engines import BACKENDS

pytestmark = pytest.mark.quick


def write_groups(system: Path, own: str, quotas: dict[str, str]) -> Path:
    """Write ``/proc/self/cgroup`` and the given files below ``/sys/fs/cgroup``."""
    (system / "proc/self").mkdir(parents=True)
    (system / "proc/self/cgroup").write_text(own)
    for name, content in quotas.items():
        file = system / "sys/fs/cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    return system


@pytest.fixture
def eight(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of 8 cores, all of which the process may use."""
    monkeypatch.setattr(cores.os, "process_cpu_count", lambda: 8, raising=False)
    monkeypatch.setattr(cores.os, "cpu_count", lambda: 8)


@pytest.mark.parametrize(
    ("own", "quotas", "expected"),
    [
        ("0::/\n", {"cpu.max": "200000 100000\n"}, 2.0),
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/\n", {}, None),
        # A group without a limit below one with a limit, and the stricter of two.
        ("0::/a/b\n", {"a/cpu.max": "150000 100000", "a/b/cpu.max": "max 100000"}, 1.5),
        ("0::/a/b\n", {"a/cpu.max": "50000 100000", "a/b/cpu.max": "400000 100000"}, 0.5),
        # The path of the host's hierarchy, where only the container's own group is mounted.
        ("0::/docker/4f2a\n", {"cpu.max": "300000 100000"}, 3.0),
        ("0::/../other\n", {"cpu.max": "300000 100000"}, 3.0),
        # Version 1, and both versions at once.
        (
            "4:cpu,cpuacct:/a\n",
            {"cpu/a/cpu.cfs_quota_us": "250000", "cpu/a/cpu.cfs_period_us": "100000"},
            2.5,
        ),
        ("4:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ("9:name=systemd:/x\n3:cpuset:/\n0::/\n", {"cpu.max": "700000 100000"}, 7.0),
        # What no kernel writes.
        ("0::/\n", {"cpu.max": "lots\n"}, None),
        ("0::/\n", {"cpu.max": "100000 0\n"}, None),
        ("nonsense\n", {"cpu.max": "200000 100000"}, None),
    ],
)
def test_the_strictest_quota_counts(
    own: str, quotas: dict[str, str], expected: float | None, tmp_path: Path
) -> None:
    assert quota_cores(write_groups(tmp_path, own, quotas)) == expected


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("150000 100000", 2),
        ("10000 100000", 1),
        ("800000 100000", 8),
        ("9900000 100000", 8),
        ("max 100000", 8),
    ],
)
def test_a_quota_bounds_the_cores(content: str, expected: int, eight: None, tmp_path: Path) -> None:
    system = write_groups(tmp_path, "0::/\n", {"cpu.max": content})
    assert count_cores(system=system) == expected
    # Engines choose for themselves where nothing binds them.
    assert bounded_threads(system=system) == (0 if expected == 8 else expected)


def test_without_control_groups_affinity_counts(eight: None, tmp_path: Path) -> None:
    assert (quota_cores(tmp_path), count_cores(system=tmp_path)) == (None, 8)


@pytest.mark.parametrize(("affinity", "expected"), [({3, 5, 6}, 3), (None, 8)])
def test_a_python_without_process_cpu_count(
    affinity: set[int] | None, expected: int, eight: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(cores.os, "process_cpu_count", raising=False)
    if affinity is None:  # macOS, Windows
        monkeypatch.delattr(cores.os, "sched_getaffinity", raising=False)
    else:
        monkeypatch.setattr(cores.os, "sched_getaffinity", lambda _process: affinity, raising=False)
    assert count_cores(system=tmp_path) == expected
    system = write_groups(tmp_path, "0::/\n", {"cpu.max": "200000 100000"})
    assert count_cores(system=system) == 2


def test_an_engine_that_may_choose_gets_the_bound(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("capsule_edge.runtime.inference.engines.bounded_threads", lambda: 3)
    seen: list[int] = []
    monkeypatch.setattr(
        "capsule_edge.runtime.inference.onnxruntime_backend._open_session",
        lambda content, threads, reference: seen.append(threads) or 1 / 0,
    )
    for threads in (0, 5):
        with pytest.raises(ModelError, match="division by zero"):
            BACKENDS["onnxruntime"].open(model, threads)
    assert seen == [3, 5]


def test_this_machine_has_a_core() -> None:
    assert 1 <= count_cores() <= (os.cpu_count() or 1)
