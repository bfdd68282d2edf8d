"""Count the processor cores that this process may use: its affinity, and the CPU quota of its control group.

A container or a service with a quota may still run on every core of the machine, but only for a part of the time.
Threads beyond the quota make each other wait, so the quota bounds their number.

Sources: Linux kernel documentation, ``admin-guide/cgroup-v2`` (``cpu.max``) and ``scheduler/sched-bwc`` (version 1);
cgroups(7) for ``/proc/self/cgroup``.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["bounded_threads", "count_cores", "quota_cores"]


def count_cores(*, system: Path = Path("/")) -> int:
    """Return the number of cores that this process may use, at least 1.

    This is the smallest of: the cores that the process is allowed to run on, its CPU quota rounded up, and the number
    that ``PYTHON_CPU_COUNT`` states (Python 3.13 and later).

    Args:
        system: the root of the file system that holds ``proc`` and ``sys``; another one is for tests.
    """
    try:
        # From Python 3.13 on. It knows affinity and PYTHON_CPU_COUNT.
        cores = os.process_cpu_count() if hasattr(os, "process_cpu_count") else len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        cores = os.cpu_count()
    quota = quota_cores(system)
    return max(1, min(cores or 1, math.ceil(quota) if quota is not None else cores or 1))


def bounded_threads(*, system: Path = Path("/")) -> int:
    """Return ``count_cores`` where that is fewer cores than the machine has, else 0.

    An inference engine that is given 0 threads chooses by the machine, and knows no quota.

    Args:
        system: as in ``count_cores``.
    """
    cores = count_cores(system=system)
    return cores if cores < (os.cpu_count() or 1) else 0


def quota_cores(system: Path = Path("/")) -> float | None:
    """Return the CPU time that this process may take, in cores; None without a quota or outside Linux.

    The quota of each group above the process's own holds too, so the smallest one counts.

    Args:
        system: as in ``count_cores``.
    """
    try:
        lines = (system / "proc/self/cgroup").read_text("utf-8").splitlines()
    except (OSError, ValueError):
        return None
    mounted = system / "sys/fs/cgroup"
    found: list[float] = []
    for line in lines:
        hierarchy, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if hierarchy == "0" and not controllers:
            found += filter(None, map(_read_max, _with_parents(mounted, group)))
        elif "cpu" in controllers.split(","):
            found += filter(None, map(_read_cfs, _with_parents(mounted / "cpu", group)))
    return min(found, default=None)


def _with_parents(mounted: Path, group: str) -> Iterator[Path]:
    """Yield the folder of a group and those of the groups above it, up to the root of the hierarchy."""
    # A container may see the path of its group in the host's hierarchy while its own group is mounted as the root.
    # Folders that are not there are skipped by the caller, so the root is read in any case.
    names = [name for name in group.split("/") if name not in ("", ".", "..")]
    for count in range(len(names), -1, -1):
        yield mounted.joinpath(*names[:count])


def _read_max(group: Path) -> float | None:
    """Return the quota in ``cpu.max`` ("200000 100000", or "max 100000") in cores; None without one."""
    try:
        quota, period = map(int, (group / "cpu.max").read_text("ascii").split())
    except (OSError, ValueError):
        return None
    return _cores(quota, period)


def _read_cfs(group: Path) -> float | None:
    """Return the quota of version 1 in cores; None without one (-1)."""
    try:
        quota, period = (
            int((group / f"cpu.cfs_{name}_us").read_text("ascii")) for name in ("quota", "period")
        )
    except (OSError, ValueError):
        return None
    return _cores(quota, period)


def _cores(quota: int, period: int) -> float | None:
    return quota / period if quota > 0 and period > 0 else None
