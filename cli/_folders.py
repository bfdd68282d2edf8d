"""``run FOLDER``: the recordings in a folder, and a word on what else lies in it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from capsule_edge.runtime.recording import FolderContent

__all__ = ["expand_folders"]


def expand_folders(videos: Sequence[Path], *, anonymous: bool = False) -> tuple[Path, ...]:
    """Return the recordings to read: those in a folder instead of the folder, where it holds any.

    A folder without recordings stays as it is: it is a series of pictures, or an error to report. Stderr says how much
    of a folder is passed over.

    Args:
        videos: recordings and folders.
        anonymous: do not name the folders.
    """
    found: list[Path] = []
    for video in videos:
        content = _list(video)
        if content is None or not content.recordings:
            found.append(video)
        else:
            click.echo(_describe("a folder" if anonymous else str(video), content), err=True)
            found += content.recordings
    return tuple(found)


def _list(video: Path) -> FolderContent | None:
    """Return the content of a folder; None for anything else, and for a DICOMDIR folder, which is one recording."""
    if not video.is_dir():
        return None
    from capsule_edge.runtime.errors import InputError
    from capsule_edge.runtime.recording import is_dicom_directory, list_folder

    if is_dicom_directory(video):
        return None
    try:
        return list_folder(video)
    except InputError:  # reported when it is read
        return None


def _describe(folder: str, content: FolderContent) -> str:
    """Return one line: the number of recordings, and of everything that is passed over."""
    passed = {
        "picture": len(content.pictures),
        "hidden file": len(content.hidden),
        "result folder": len(content.results),
        "other entry": len(content.others),
    }
    rest = ", ".join(_count(count, kind) for kind, count in passed.items() if count)
    text = f"{folder}: {_count(len(content.recordings), 'recording')}"
    text += f"; passed over: {rest}" if rest else ""
    if content.pictures:
        return f"warning: {text}. To read the pictures, move them to a folder of their own."
    return f"note: {text}"


def _count(number: int, noun: str) -> str:
    plural = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{number:,} {noun if number == 1 else plural}"
