"""A folder of exported files that appears whole or not at all, with the hashes of what it holds."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from capsule_edge.runtime.errors import OutputError

__all__ = ["check_new", "hash_file", "new_folder", "write_sums"]


def check_new(out: Path) -> None:
    """Raise ``OutputError`` if ``out`` is anything but an empty folder or nothing."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError(f"{out} exists and is not empty", hint="choose a new folder for --out")


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``out``. It takes that name at the end, or is removed if the block raises.

    Raises:
        OutputError: ``out`` cannot be written.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise OutputError(f"{out} cannot be written: {error}") from None
    try:
        yield work
        if out.exists():
            out.rmdir()
        # mkdtemp makes a folder for its owner alone; others must be able to read the models.
        work.chmod(0o755)
        os.replace(work, out)
    except OSError as error:
        raise OutputError(f"{out} cannot be written: {error}") from None
    finally:
        shutil.rmtree(work, ignore_errors=True)


def write_sums(folder: Path, paths: Iterable[Path]) -> dict[str, dict[str, Any]]:
    """Write ``SHA256SUMS`` and return the size and the hash of each file."""
    files = {path.name: {"bytes": path.stat().st_size, "sha256": hash_file(path)} for path in paths}
    sums = "".join(f"{entry['sha256']}  {file}\n" for file, entry in sorted(files.items()))
    (folder / "SHA256SUMS").write_bytes(sums.encode())
    return files


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file, 64 hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
