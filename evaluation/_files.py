"""Write a file, or several files together, completely or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from capsule_edge.runtime.errors import OutputError
from capsule_edge.runtime.results import commit_files, whole_file

__all__ = ["check_free", "write_text", "write_together"]


def write_text(path: str | Path, content: str | bytes) -> Path:
    """Write a file completely or not at all, and make its folder.

    Args:
        path: The file to write.
        content: Text (written as UTF-8) or bytes.

    Returns:
        The path.

    Raises:
        OutputError: The file cannot be written. Nothing is left behind.
    """
    path = Path(path)
    with whole_file(path) as temporary:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
    return path


def check_free(folder: str | Path, sign: str, *, overwrite: bool) -> None:
    """Check that a report may be written into a folder.

    Args:
        folder: The folder; it need not exist.
        sign: Name of the report's main file. A folder that holds it holds such a report.
        overwrite: Allow the folder to hold such a report.

    Raises:
        OutputError: ``folder`` is a file, or holds a report that may not be overwritten.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} cannot be a folder: a file is in its place", hint="choose another --out")
    if (folder / sign).exists() and not overwrite:
        raise OutputError(f"{folder} already holds {sign}", hint="choose another --out, or pass --overwrite")


def write_together(
    folder: str | Path, contents: Mapping[str, str | bytes], *, sign: str, overwrite: bool = False
) -> list[Path]:
    """Write the files of a report into a folder, all or none.

    Args:
        folder: The folder; it is made.
        contents: Text (written as UTF-8) or bytes of each file by name.
        sign: Name of the report's main file, which is written last.
        overwrite: Replace a report that the folder holds.

    Returns:
        The paths of the files.

    Raises:
        OutputError: The folder cannot be written, or holds a report that may not be overwritten. The folder is
            unchanged.
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
