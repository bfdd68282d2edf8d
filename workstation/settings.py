"""The settings of the reading workstation, with their defaults in one place."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Settings", "default_home"]

_GIB = 1 << 30


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of a workstation.

    Attributes:
        home: folder of the database, uploads, results and models.
        folders: folders whose recordings may be opened by path.
        host: address to listen on; loopback only.
        port: TCP port; 0 lets the system choose a free one.
        token_hours: hours until the access token expires.
        upload_bytes: size of the largest upload that is accepted.
        job_memory_bytes: memory that a process that reads a recording may use.
        job_seconds: time that such a process may take.
        workers: number of recordings that are read at the same time.
    """

    home: Path
    folders: tuple[Path, ...] = ()
    host: str = "127.0.0.1"
    port: int = 0
    token_hours: float = 12.0
    upload_bytes: int = 8 * _GIB
    job_memory_bytes: int = 4 * _GIB
    job_seconds: float = 4 * 3600.0
    workers: int = 1


def default_home() -> Path:
    """Return the workstation's folder: ``CAPSULE_EDGE_HOME``, or the user's data folder of this system."""
    if chosen := os.environ.get("CAPSULE_EDGE_HOME"):
        return Path(chosen)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "capsule-edge"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "capsule-edge"
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "capsule-edge"
