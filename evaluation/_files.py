"""Files that are written whole or not at all, alone or several together."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

from capsule_edge.runtime.errors import OutputError
from capsule_edge.runtime.results import commit_files

__all__ = ["check_free", "write_together", "write_whole"]


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


def check_free(folder: str | Path, sign: str, *, overwrite: bool) -> None:
    """Raise ``OutputError`` where ``folder`` is a file, or holds ``sign`` already and may not be overwritten."""
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise OutputError(
            f"{folder} cannot be a folder: a file lies in its place", hint="choose another --out"
        )
    if (folder / sign).exists() and not overwrite:
        raise OutputError(f"{folder} already holds {sign}", hint="choose another --out, or pass --overwrite")


def write_together(
    folder: str | Path, contents: Mapping[str, str | bytes], *, sign: str, overwrite: bool = False
) -> list[Path]:
    """Write the files of a report into ``folder``, all or none, ``sign`` last; returns their paths.

    Raises ``OutputError`` with the folder as it was, also where it holds ``sign`` and may not be overwritten.
    """
    folder = Path(folder)
    check_free(folder, sign, overwrite=overwrite)
    data = {name: text.encode("utf-8") if isinstance(text, str) else text for name, text in contents.items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{folder} cannot be written: {error.strerror or error}", hint="choose another --out"
        ) from None
    return list(commit_files(folder, data, sign=sign).values())
