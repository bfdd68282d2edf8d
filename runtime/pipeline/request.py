"""The read request: which frames to read, resolved before decoding, and its comparison with an earlier run."""

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

__all__ = ["REQUEST_OPTIONS", "ReadRequest", "resolve_request", "tool_versions"]

# The options of ``Reader.read`` that a request takes.
REQUEST_OPTIONS = ("capture_fps", "start_s", "end_s", "every", "gate", "landmarks", "stream")

# No frame's answer depends on these options, so an interrupted run may be resumed with others.
_AFTERWARDS = ("capture_fps", "landmarks")
# Packages whose version may change an answer, where they are installed.
_LIBRARIES = ("ai-edge-litert", "av", "numpy", "onnxruntime", "opencv-python-headless", "openvino", "pydicom")


@dataclass(frozen=True)
class ReadRequest:
    """A recording, the frames to read of it, and the resolved options that can change a result.

    Attributes:
        container: lists the recording's frames.
        wanted: indices of the frames to read.
        digest: the SHA-256 of the recording, computed in the background.
        stream_digest: the SHA-256 of the bit stream inside the recording, or None (``Container.stream_digest``).
        landmarks: seconds of container time by name.
        options: what was asked for, JSON values, as ``study.json`` has it.
    """

    container: Container
    wanted: range
    digest: Future[str]
    stream_digest: Future[str | None]
    landmarks: dict[str, float]
    options: dict[str, Any]

    @property
    def sha256(self) -> str:
        """SHA-256 of the recording. Waits until it is computed; raises ``InputError`` where a file is gone."""
        return self.digest.result()

    @property
    def stream_sha256(self) -> str | None:
        """SHA-256 of the bit stream inside the recording (DICOM); None for other recordings. Waits as ``sha256``."""
        return self.stream_digest.result()

    def identify(self, backend: Backend) -> dict[str, Any]:
        """Return all that the answers of a run depend on, JSON values. Waits for ``sha256``."""
        return {
            "recording": self.sha256,
            "model": backend.sha256,
            "backend": backend.name,
            "options": {name: self.options[name] for name in self.options if name not in _AFTERWARDS},
            **tool_versions(),
        }

    def is_answered_by(
        self, document: Mapping[str, Any], backend: Backend, *, anonymous: bool = False
    ) -> bool:
        """Return whether a ``study.json`` is the complete result of this request.

        Args:
            document: the content of the file.
            backend: the opened model.
            anonymous: the file must not name the recording.
        """
        if anonymous and _at(document, "source", "name") != self.sha256:
            return False
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


def resolve_request(
    path: str | Path,
    *,
    capture_fps: float | None = None,
    start_s: float | None = None,
    end_s: float | None = None,
    every: int = 1,
    gate: float | None = None,
    landmarks: Mapping[str, float] | None = None,
    stream: int | None = None,
) -> ReadRequest:
    """Scan a recording and check the options of ``Reader.read``, which documents them.

    Raises:
        InputError: the file is no recording.
        UsageError: an option is impossible.
    """
    if capture_fps is not None and not (math.isfinite(capture_fps) and capture_fps > 0):
        raise UsageError(
            f"capture_fps is {capture_fps}, allowed is a number above 0",
            hint="--capture-fps is the number of frames that the capsule records per second",
        )
    if gate is not None:
        gate = check_threshold(gate)
    container = scan(path, stream=stream)
    wanted = choose_frames(container, start_s, end_s, every)
    marks = check_landmarks(landmarks or {}, last_s=max(container.times_s[-1], container.duration_s or 0.0))
    # Hashing reads the whole file, so nothing waits for it. For a short file it ends before the first frame.
    digest = start(container.digest, name="digest")
    stream_digest = start(container.stream_digest, name="stream digest")
    options = {
        "capture_fps": capture_fps,
        "end_s": end_s,
        "every": every,
        "gate": gate,
        "landmarks": marks,
        "start_s": start_s,
        "stream": stream,
    }
    return ReadRequest(container, wanted, digest, stream_digest, marks, options)


def tool_versions() -> dict[str, Any]:
    """Return the version of capsule-edge and those of the libraries that may change an answer, JSON values."""
    return {
        "version": _version(),
        "libraries": {name: found for name in _LIBRARIES if (found := _installed(name)) is not None},
    }


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
