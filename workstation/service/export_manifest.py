"""Describe the files that can be exported of a study: their sizes, their SHA-256, and where its log stands."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from capsule_edge.runtime import __version__

from ..store import utc_now

__all__ = ["SCHEMA", "write_manifest"]

SCHEMA = "capsule-edge/exports/1"


def write_manifest(
    files: Mapping[str, bytes], *, study: Any, result: Any | None, head: str, lines: int
) -> bytes:
    """Return the manifest as JSON.

    The files of a result are older than most lines of the log and cannot hold its last hash. The manifest names both,
    so that a file and a state of the log can be held together later.

    Args:
        files: contents by name, with the log as it is now.
        study: row of the study.
        result: row of the result; None before the first.
        head: hash of the last line of the log.
        lines: number of its lines.
    """
    document = {
        "schema": SCHEMA,
        "tool": {"version": __version__},
        "created_at": utc_now(),
        "study_id": study.id,
        "recording_sha256": study.sha256,
        "result_id": None if result is None else result.id,
        "model_sha256": None if result is None else result.model_sha256,
        "files": [
            {"name": name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for name, content in files.items()
        ],
        "log": {"chain": study.id, "lines": lines, "head": head},
    }
    return (json.dumps(document, indent=1) + "\n").encode()
