"""The machine card: what a figure was measured on."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from capsule_edge.runtime.cpu import describe_cpu

__all__ = ["describe_machine"]

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


def describe_machine() -> dict[str, Any]:
    """Processor, cores that this process may use, governor, load, system and versions; None for what is not told."""
    try:
        governor = _GOVERNOR.read_text("utf-8").strip()
    except OSError:
        governor = None
    try:
        load: float | None = round(os.getloadavg()[0], 2)
    except (OSError, AttributeError):  # Windows
        load = None
    return {
        "cpu": describe_cpu().to_dict(),
        "cores_allowed": _allowed(),
        "governor": governor,
        "load_1min": load,
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: _installed(name) for name in _PACKAGES},
    }


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
