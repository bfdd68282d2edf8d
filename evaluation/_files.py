"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from capsule_edge.runtime.errors import OutputError

__all__ = ["write_whole"]


def write_whole(path: str | Path, content: str | bytes, what: str) -> Path:
    """Write beside ``path`` and move, making its folder. ``what`` names it in an error.

    Raises ``OutputError`` where it cannot be written; then nothing is left behind.
    """
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    data = content.encode("utf-8") if isinstance(content, str) else content
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(data)
        os.replace(partial, path)
    except OSError as error:
        # Where the folder is a file, there is nothing to remove and even that is an error.
        with contextlib.suppress(OSError):
            partial.unlink()
        raise OutputError(f"{what} {path} cannot be written: {error.strerror or error}") from None
    return path
