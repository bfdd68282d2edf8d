"""What is to be read, before anything is decoded; and whether an earlier run read just that."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..events import check_landmarks
from ..inference import Backend
from ..preprocessing import check_threshold
from ..recording import Container, scan
from ..study import choose_frames
from .parallel import start

__all__ = ["SURVEY_OPTIONS", "Survey", "survey_recording"]

# The options of ``Reader.read`` that a survey takes.
SURVEY_OPTIONS = ("capture_fps", "start_s", "end_s", "every", "gate", "landmarks")

# Options that no frame's answer depends on: an interrupted run may be gone on with under others.
_AFTERWARDS = ("capture_fps", "landmarks")
# What takes part in an answer, where it is installed.
_LIBRARIES = ("ai-edge-litert", "av", "numpy", "onnxruntime", "opencv-python-headless", "openvino", "pydicom")


@dataclass(frozen=True)
class Survey:
    """A recording, the indices that are ``wanted`` of it, and the resolved options that can change a result."""

    container: Container
    wanted: range
    digest: Future[str]
    landmarks: dict[str, float]
    options: dict[str, Any]

    @property
    def sha256(self) -> str:
        """Of the recording; waits until it is worked out. Raises ``InputError`` where a file is gone."""
        return self.digest.result()

    def identify(self, backend: Backend) -> dict[str, Any]:
        """All that the answers of a run depend on, JSON values; waits for ``sha256``."""
        return {
            "recording": self.sha256,
            "model": backend.sha256,
            "backend": backend.name,
            "options": {name: self.options[name] for name in self.options if name not in _AFTERWARDS},
            "version": _version(),
            "libraries": {name: found for name in _LIBRARIES if (found := _installed(name)) is not None},
        }

    def is_told_by(self, document: Mapping[str, Any], backend: Backend) -> bool:
        """Whether a ``study.json`` is what reading this would leave, with no frame unread."""
        options = json.loads(json.dumps(self.options))
        found = (
            _at(document, "source", "sha256"),
            _at(document, "model", "sha256"),
            _at(document, "model", "backend"),
            _at(document, "tool", "version"),
            _at(document, "tool", "options"),
            _at(document, "ledger", "unread"),
        )
        return found == (self.sha256, backend.sha256, backend.name, _version(), options, 0)


def survey_recording(
    path: str | Path,
    *,
    capture_fps: float | None = None,
    start_s: float | None = None,
    end_s: float | None = None,
    every: int = 1,
    gate: float | None = None,
    landmarks: Mapping[str, float] | None = None,
) -> Survey:
    """Scan a recording and check the options of ``Reader.read``. Raises ``InputError`` and ``UsageError``."""
    if capture_fps is not None and not (math.isfinite(capture_fps) and capture_fps > 0):
        raise UsageError(f"capture_fps is {capture_fps}, allowed is a number above 0")
    if gate is not None:
        gate = check_threshold(gate)
    container = scan(path)
    wanted = choose_frames(container, start_s, end_s, every)
    marks = check_landmarks(landmarks or {}, last_s=max(container.times_s[-1], container.duration_s or 0.0))
    # The whole file is read for it, so nothing waits; of a short one it is there before the first frame.
    digest = start(container.digest, name="digest")
    options = {
        "capture_fps": capture_fps,
        "end_s": end_s,
        "every": every,
        "gate": gate,
        "landmarks": marks,
        "start_s": start_s,
    }
    return Survey(container, wanted, digest, marks, options)


def _at(document: Mapping[str, Any], part: str, name: str) -> Any:
    inner = document.get(part)
    return inner.get(name) if isinstance(inner, Mapping) else None


def _version() -> str:
    from .. import __version__

    return __version__


def _installed(name: str) -> str | None:
    from importlib import metadata

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
