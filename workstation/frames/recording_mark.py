"""Mark the state of a recording's files, and keep links from leading out of the folders that may be opened."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from capsule_edge.runtime.errors import InputError
from capsule_edge.runtime.recording import list_files, quote

__all__ = ["RecordingMark", "mark_recording"]


@dataclass(frozen=True, slots=True)
class RecordingMark:
    """The state of all files of a recording.

    Attributes:
        bytes: size of the files together.
        digest: 64 hexadecimal digits, from each file's name, size, time of change and number (inode). Equal digests
            mean that no file was changed, replaced, added or removed.
    """

    bytes: int
    digest: str


def mark_recording(path: Path, roots: Sequence[Path] = ()) -> RecordingMark:
    """Return the mark of a recording. Its files are not opened.

    Args:
        path: of a file, or of the folder of a series.
        roots: resolved folders in which the recording may lie. Links may lead from one place in them to another.
            Without them, ``path`` must lead to itself, and the files of a series must lie in its folder.

    Raises:
        InputError: a link leads elsewhere, or a file cannot be found.
        PackageError: a package is missing that lists the files.
    """
    try:
        target = path.resolve(strict=True)
        if target != path:
            _check_inside(path, target, roots)
        folder = target if target.is_dir() else target.parent
        whole, size = hashlib.sha256(), 0
        for file in list_files(target):
            status = os.lstat(file)
            # Resolving every path would take seconds for a long series.
            if stat.S_ISLNK(status.st_mode):
                _check_inside(path, file.resolve(strict=True), (*roots, folder))
                status = os.stat(file)
            size += status.st_size
            name = "" if file == target else file.relative_to(folder).as_posix()
            facts = f"{name}\0{status.st_size}\0{status.st_mtime_ns}\0{status.st_ino}\n"
            whole.update(facts.encode("utf-8", "surrogateescape"))
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(
            f"{quote(path)} cannot be read: {(getattr(error, 'strerror', None) or str(error)).lower()}",
            hint="it was moved or deleted; put it back and try again",
        ) from error
    return RecordingMark(size, whole.hexdigest())


def _check_inside(path: Path, target: Path, roots: Sequence[Path]) -> None:
    if not any(target.is_relative_to(root) for root in roots):
        raise InputError(
            f"{quote(path)} holds or is a link that leads out of the folders that may be opened",
            hint="put the files themselves in place of links",
        )
