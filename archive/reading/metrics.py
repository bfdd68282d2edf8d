"""Figures of a running archive for Prometheus, as a text file.

The node exporter of Prometheus reads such files from a folder (its textfile collector), so the driver needs no port.
"""

from __future__ import annotations

import time
from pathlib import Path

from capsule_edge.runtime.results import write_whole

from .outcome import ReadingOutcome

__all__ = ["ArchiveMetrics"]

_EVERY_S = 5.0
_PREFIX = "capsule_edge_archive"


class ArchiveMetrics:
    """Write the figures to a file at most every few seconds.

    Args:
        path: the file; replaced whole each time.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._begun, self._written = path, time.time(), 0.0

    def update(self, outcome: ReadingOutcome, *, running: int, waiting: int, workers: int) -> None:
        """Take the state of the driver."""
        if time.monotonic() - self._written < _EVERY_S and waiting:
            return
        self._written = time.monotonic()
        text = describe(outcome, running=running, waiting=waiting, workers=workers, begun=self._begun)
        write_whole(self._path, text.encode())


def describe(outcome: ReadingOutcome, *, running: int, waiting: int, workers: int, begun: float) -> str:
    """Return the figures in Prometheus' text format.

    Args:
        outcome: so far.
        running, waiting, workers: numbers of tasks, recordings and workers.
        begun: start of the driver, seconds since 1970.
    """
    lines = [
        f"# HELP {_PREFIX}_recordings Recordings of this run by state.",
        f"# TYPE {_PREFIX}_recordings gauge",
    ]
    states = {name: getattr(outcome, name) for name in ("read", "incomplete", "failed", "set_aside")}
    lines += [
        f'{_PREFIX}_recordings{{state="{name}"}} {count}'
        for name, count in {**states, "waiting": waiting}.items()
    ]
    figures = {
        "frames_total": ("counter", "Frames that this run has read.", outcome.frames),
        "tasks_running": ("gauge", "Tasks that workers are busy with.", running),
        "workers": ("gauge", "Tasks that may run at once.", workers),
        "started_seconds": ("gauge", "Start of the driver, seconds since 1970.", round(begun, 3)),
        "updated_seconds": ("gauge", "Time of these figures, seconds since 1970.", round(time.time(), 3)),
    }
    for name, (kind, text, value) in figures.items():
        lines += [
            f"# HELP {_PREFIX}_{name} {text}",
            f"# TYPE {_PREFIX}_{name} {kind}",
            f"{_PREFIX}_{name} {value}",
        ]
    return "\n".join(lines) + "\n"
