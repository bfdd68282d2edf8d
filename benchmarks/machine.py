"""Describe the machine that a benchmark runs on, and read the system's counters of time and memory."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

# The room, not its function: the room loads the decoders only when the function is called. ``startup`` measures the
# memory of a process that imports this module.
from capsule_edge.runtime import pipeline
from capsule_edge.runtime.diagnostics import describe_cpu
from capsule_edge.runtime.errors import UsageError

__all__ = ["describe_machine", "limit_cores", "load_now", "memory_now", "peak_memory", "time_of_others"]

_PACKAGES = (
    "capsule-edge",
    "numpy",
    "opencv-python-headless",
    "av",
    "onnxruntime",
    "openvino",
    "ai-edge-litert",
)
_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
# Linux reports energy if the processor has RAPL, and hardware counters if the machine grants access to them. Most
# virtual machines have neither.
_ENERGY = Path("/sys/class/powercap")
_COUNTERS = Path("/sys/bus/event_source/devices")


def describe_machine() -> dict[str, Any]:
    """Return the machine card that every result carries.

    Returns:
        Processor, number of cores that this process may use, frequency governor, load of the last minute, whether the
        system reports energy and hardware instruction counters, operating system, Python and package versions. A
        value that the system does not report is None.
    """
    try:
        governor = _GOVERNOR.read_text("utf-8").strip()
    except OSError:
        governor = None
    return {
        "cpu": describe_cpu().to_dict(),
        "cores_allowed": pipeline.count_cores(),
        "governor": governor,
        "load_1min": load_now(),
        "energy_counters": _has_entry(_ENERGY, "*rapl*"),
        "instruction_counters": _has_entry(_COUNTERS, "cpu*"),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: _find_version(name) for name in _PACKAGES},
    }


def load_now() -> float | None:
    """Return the system's load average of the last minute, or None if the system has none."""
    try:
        return round(os.getloadavg()[0], 2)
    except (OSError, AttributeError):  # Windows
        return None


def time_of_others(busy: Callable[[], float | None] | None = None) -> float | None:
    """Return the core seconds that other processes have used since the machine started.

    The time of this process and of the children that it has waited for is subtracted. The difference of two calls says
    how busy other programs were in between.

    Args:
        busy: returns the busy seconds of all cores; by default as the system reports them.

    Returns:
        Core seconds, or None if the system does not report them.
    """
    seconds, mine = (busy or _busy_seconds)(), os.times()
    return None if seconds is None else seconds - sum(mine[:4])


def _busy_seconds() -> float | None:
    """Return the seconds that all cores together were busy since the machine started."""
    if not sys.platform.startswith("linux"):
        return None
    with open("/proc/stat", encoding="utf-8") as stat:
        user, nice, system, _idle, _wait, irq, soft = map(int, stat.readline().split()[1:8])
    return (user + nice + system + irq + soft) / os.sysconf("SC_CLK_TCK")


def peak_memory() -> int | None:
    """Return the most memory in bytes that this process has held, or None if the system does not report it."""
    if sys.platform == "linux":
        # Not getrusage: its figure starts from the parent's memory.
        return _read_status("VmHWM")
    if sys.platform == "darwin":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return None


def memory_now() -> tuple[int, int] | None:
    """Return the memory of this process in bytes: all of it, and without pages of libraries and files.

    Returns None if the system does not report it.
    """
    if sys.platform != "linux":
        return None
    whole, own = _read_status("VmRSS"), _read_status("RssAnon")
    return None if whole is None or own is None else (whole, own)


def _read_status(name: str) -> int | None:
    with open("/proc/self/status", encoding="utf-8") as status:
        return next((int(line.split()[1]) * 1024 for line in status if line.startswith(f"{name}:")), None)


def limit_cores(cores: int) -> None:
    """Restrict this process to ``cores`` cores.

    Raises:
        UsageError: the process may not use as many cores, or the system cannot restrict a process.
    """
    allowed = pipeline.count_cores()
    if not 1 <= cores <= allowed:
        raise UsageError(f"cores is {cores}, allowed are 1 to {allowed}")
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:cores]))
    elif cores < allowed:
        raise UsageError(f"this system cannot restrict a process to {cores} of {allowed} cores")


def _has_entry(folder: Path, pattern: str) -> bool | None:
    return any(folder.glob(pattern)) if sys.platform == "linux" else None


def _find_version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
