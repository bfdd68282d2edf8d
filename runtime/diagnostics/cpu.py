"""Describe the processor: its name, and which instruction sets it has of those that matter for 8-bit models.

Linux lists all of them in ``/proc/cpuinfo``; macOS and Windows report some. A feature that the system does not report
is None, never False.
"""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["FEATURES", "Cpu", "describe_cpu"]

FEATURES = ("avx2", "avx512", "vnni", "amx", "neon", "dotprod")
# Flags in /proc/cpuinfo; any of them means that the feature is there.
_LINUX = {
    "avx2": ("avx2",),
    "avx512": ("avx512bw",),
    "vnni": ("avx512_vnni", "avx_vnni"),
    "amx": ("amx_int8",),
    "neon": ("asimd", "neon"),
    "dotprod": ("asimddp",),
}
_MACOS = {
    "avx2": ("hw.optional.avx2_0",),
    "avx512": ("hw.optional.avx512bw",),
    "neon": ("hw.optional.neon", "hw.optional.AdvSIMD"),
    "dotprod": ("hw.optional.arm.FEAT_DotProd",),
}
# PF_AVX2_INSTRUCTIONS_AVAILABLE, PF_AVX512F_INSTRUCTIONS_AVAILABLE, PF_ARM_NEON_INSTRUCTIONS_AVAILABLE,
# PF_ARM_V82_DP_INSTRUCTIONS_AVAILABLE of IsProcessorFeaturePresent (winnt.h), which has no number for VNNI.
_WINDOWS = {"avx2": 40, "avx512": 41, "neon": 19, "dotprod": 43}


@dataclass(frozen=True)
class Cpu:
    """A processor.

    Attributes:
        name: its model name; empty if unknown.
        architecture: as ``platform.machine`` spells it, such as "x86_64".
        cores: number of logical cores.
        features: one key for each of ``FEATURES``; None if the system does not report it.
    """

    name: str
    architecture: str
    cores: int
    features: Mapping[str, bool | None]

    def to_dict(self) -> dict[str, Any]:
        """Return the processor as it is written into JSON."""
        return {
            "name": self.name,
            "architecture": self.architecture,
            "cores": self.cores,
            "features": dict(self.features),
        }


def describe_cpu() -> Cpu:
    """Describe this machine's processor. Never raises: unknown features are None, an unknown name is empty."""
    found: dict[str, bool | None] = dict.fromkeys(FEATURES)
    name = platform.processor()
    try:
        if sys.platform.startswith("linux"):
            text = Path("/proc/cpuinfo").read_text("utf-8", "replace")
            name = _value(text, "model name") or name
            found |= read_flags(text)
        elif sys.platform == "darwin":
            name = _sysctl("machdep.cpu.brand_string") or name
            found |= {feature: _any(_sysctl(key) for key in keys) for feature, keys in _MACOS.items()}
        elif sys.platform == "win32":
            present = ctypes.windll.kernel32.IsProcessorFeaturePresent
            found |= {feature: bool(present(number)) for feature, number in _WINDOWS.items()}
    except (OSError, AttributeError, subprocess.SubprocessError):
        pass
    machine = platform.machine()
    # These follow from the architecture itself.
    if machine.lower() in ("arm64", "aarch64"):
        found |= {"avx2": False, "avx512": False, "vnni": False, "amx": False, "neon": True}
    elif machine.lower() in ("x86_64", "amd64"):
        found |= {"neon": False, "dotprod": False}
        if found["avx2"] is False:
            found |= {"avx512": False, "vnni": False, "amx": False}
    return Cpu(name, machine, os.cpu_count() or 1, found)


def read_flags(cpuinfo: str) -> dict[str, bool | None]:
    """Return the features that the text of ``/proc/cpuinfo`` lists; all None if it has no line of flags."""
    flags = (_value(cpuinfo, "flags") or _value(cpuinfo, "Features")).split()
    return {
        feature: any(name in flags for name in names) if flags else None for feature, names in _LINUX.items()
    }


def _value(cpuinfo: str, key: str) -> str:
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return ""


def _sysctl(key: str) -> str:
    done = subprocess.run(["sysctl", "-n", key], capture_output=True, text=True, timeout=5)
    return done.stdout.strip() if done.returncode == 0 else ""


def _any(values: Any) -> bool | None:
    known = [value for value in values if value]
    return any(value == "1" for value in known) if known else None
