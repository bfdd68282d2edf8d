"""The machine card: what a figure was measured on."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

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
# Linux tells energy where the processor has RAPL and counts instructions where it lends its counters; virtual machines
# mostly have neither.
_ENERGY = Path("/sys/class/powercap")
_COUNTERS = Path("/sys/bus/event_source/devices")


def describe_machine() -> dict[str, Any]:
    """Processor, cores that this process may use, governor, load, whether energy and instructions are told,
    system and versions; None for what is not told."""
    try:
        governor = _GOVERNOR.read_text("utf-8").strip()
    except OSError:
        governor = None
    return {
        "cpu": describe_cpu().to_dict(),
        "cores_allowed": _allowed(),
        "governor": governor,
        "load_1min": load_now(),
        "energy_counters": _has(_ENERGY, "*rapl*"),
        "instruction_counters": _has(_COUNTERS, "cpu*"),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: _installed(name) for name in _PACKAGES},
    }


def load_now() -> float | None:
    """Processes that wanted a core over the last minute; None where the system does not tell."""
    try:
        return round(os.getloadavg()[0], 2)
    except (OSError, AttributeError):  # Windows
        return None


def time_of_others() -> float | None:
    """Seconds since its start that the machine's cores were busy with anything but this process and the children that
    it has waited for; None where the system does not tell.
    """
    busy, mine = _busy_s(), os.times()
    return None if busy is None else busy - sum(mine[:4])


def _busy_s() -> float | None:
    """Seconds that all cores together were busy since the start of the system."""
    if not sys.platform.startswith("linux"):
        return None
    with open("/proc/stat", encoding="utf-8") as stat:
        user, nice, system, _idle, _wait, irq, soft = map(int, stat.readline().split()[1:8])
    return (user + nice + system + irq + soft) / os.sysconf("SC_CLK_TCK")


def peak_memory() -> int | None:
    """Bytes that this process held at most; None where the system does not tell."""
    if sys.platform == "linux":
        # Not getrusage, whose figure starts from what the parent held.
        return _status("VmHWM")
    if sys.platform == "darwin":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return None


def memory_now() -> tuple[int, int] | None:
    """Bytes that this process holds in all, and without pages of libraries and files; None where it is not told."""
    if sys.platform != "linux":
        return None
    whole, own = _status("VmRSS"), _status("RssAnon")
    return None if whole is None or own is None else (whole, own)


def _status(name: str) -> int | None:
    with open("/proc/self/status", encoding="utf-8") as status:
        return next((int(line.split()[1]) * 1024 for line in status if line.startswith(f"{name}:")), None)


def limit_cores(cores: int) -> None:
    """Let this process use ``cores`` cores. Raises ``UsageError`` where there are fewer, or none can be chosen."""
    allowed = _allowed()
    if not 1 <= cores <= allowed:
        raise UsageError(f"cores is {cores}, allowed are 1 to {allowed}")
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:cores]))
    elif cores < allowed:
        raise UsageError(f"this system cannot keep a process to {cores} of {allowed} cores")


def _has(folder: Path, pattern: str) -> bool | None:
    return any(folder.glob(pattern)) if sys.platform == "linux" else None


def _allowed() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        return os.cpu_count() or 1


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
