"""The setup that all workers of a reading share, and the hashes that identify results and machines."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from capsule_edge import runtime
from capsule_edge.runtime import Reader
from capsule_edge.runtime.pipeline import tool_versions

__all__ = ["ReadSetup", "describe_other_versions", "open_reader", "tool_hash"]

# The options of ``Reader.read`` that an archive is read with, and their defaults.
DEFAULTS: dict[str, Any] = {
    "capture_fps": None,
    "start_s": None,
    "end_s": None,
    "every": 1,
    "gate": None,
    "landmarks": None,
    "stream": None,
}


@dataclass(frozen=True)
class ReadSetup:
    """The model and the options with which an archive is read. The setup is sent to every worker.

    Attributes:
        out: folder of the archive; all workers see it under this path.
        model: the model file, or the name of an installed model; all machines have it.
        model_sha256: of the model file.
        backend: inference engine.
        options: keyword arguments of ``Reader.read``.
        tool: hash of the code that reads (``tool_hash``).
        split_frames: a recording of more frames is divided into parts of about so many; 0 divides none.
        allow_saturation: open the model even if its 8-bit sums saturate on a processor.
        versions: those of the driver (``tool_versions``). They are stored, because a worker may have others.
    """

    out: Path
    model: str
    model_sha256: str
    backend: str
    options: dict[str, Any]
    tool: str
    split_frames: int = 4096
    allow_saturation: bool = False
    versions: dict[str, Any] = field(default_factory=tool_versions)

    @property
    def identity(self) -> str:
        """Hash of all that the answers depend on beside the recording, 64 hexadecimal digits."""
        return hash_document(
            {
                "model": self.model_sha256,
                "backend": self.backend,
                "options": {**DEFAULTS, **self.options},
                **self.versions,
            }
        )

    def key(self, sha256: str, suffix: str) -> str:
        """Return the name of a result, 64 hexadecimal digits. Copies of a recording have the same.

        Args:
            sha256: of the recording.
            suffix: of its file, which FFmpeg looks at, too; empty for a folder of pictures.
        """
        document = {"recording": sha256, "suffix": suffix.lower(), "identity": self.identity}
        return hash_document(document)


def describe_other_versions(driver: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """Return how the versions of this machine differ from those of the driver, in a sentence; empty if they do not.

    Args:
        driver, here: ``tool_versions`` of both.
    """
    sides = [{"capsule-edge": side["version"], **side["libraries"]} for side in (driver, here)]
    names = sorted(
        name for name in sides[0].keys() | sides[1].keys() if sides[0].get(name) != sides[1].get(name)
    )
    texts = [[side.get(name) or "not installed" for side in sides] for name in names]
    parts = [f"{name} {mine} (driver: {theirs})" for name, (theirs, mine) in zip(names, texts, strict=True)]
    return f"the versions are not those of the driver: {', '.join(parts)}" if parts else ""


def open_reader(setup: ReadSetup) -> Reader:
    """Open the model of a setup with one thread."""
    return Reader.open(setup.model, backend=setup.backend, threads=1, allow_saturation=setup.allow_saturation)


def hash_document(document: Mapping[str, Any]) -> str:
    """Return the SHA-256 of JSON values, whatever the order of the keys."""
    text = json.dumps(document, sort_keys=True, ensure_ascii=False, allow_nan=False)
    # A name that is not valid Unicode (Linux allows it) has a hash, too.
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


@lru_cache(maxsize=1)
def tool_hash() -> str:
    """Return the SHA-256 of the installed code of ``runtime``: two machines that differ would answer differently."""
    whole = hashlib.sha256()
    for folder in sorted(runtime.__path__):
        for path in sorted(Path(folder).rglob("*.py")):
            whole.update(path.relative_to(folder).as_posix().encode())
            whole.update(path.read_bytes())
    return whole.hexdigest()
