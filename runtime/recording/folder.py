"""Sort the files of a folder: pictures, recordings, hidden files and the rest."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from .ffmpeg import quote

__all__ = ["IMAGES", "RECORDING_SUFFIXES", "FolderContent", "is_hidden", "list_folder", "natural_order"]

IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
# Suffixes of files that are recordings by themselves. TIFF files in a folder are pictures.
RECORDING_SUFFIXES = (
    ".3g2", ".3gp", ".asf", ".avi", ".dcm", ".dicom", ".flv", ".m2ts", ".m4v", ".mj2", ".mkv", ".mov", ".mp4",
    ".mpeg", ".mpg", ".mts", ".ogg", ".ogv", ".ts", ".vob", ".webm", ".wmv",
)  # fmt: skip
_RESULTS = ".capsule-edge"
# Folders that Synology and QNAP disks make.
_OF_DISKS = frozenset({"@eaDir", "@Recycle", "@Recently-Snapshot", "#recycle", "#snapshot"})


def is_hidden(path: Path) -> bool:
    """Return whether a file or folder is hidden: its name begins with a dot, or network disks keep it for themselves.

    The AppleDouble files ("._name") that macOS leaves beside each file on foreign disks begin with a dot. They carry
    the suffix of a picture and hold none. ``@eaDir`` and its like hold small copies of pictures, or deleted files.
    """
    return path.name.startswith(".") or path.name in _OF_DISKS


def natural_order(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """Return a sort key that puts 'frame 2' before 'frame 10' and ignores case."""
    parts = re.split(r"(\d+)", name.casefold())
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part], name


@dataclass(frozen=True)
class FolderContent:
    """The content of a folder by kind, each in natural order.

    Attributes:
        pictures: image files.
        recordings: video and DICOM files.
        hidden: hidden files and folders of any kind (``is_hidden``).
        results: folders that ``run`` left.
        others: everything else, folders included.
    """

    pictures: tuple[Path, ...]
    recordings: tuple[Path, ...]
    hidden: tuple[Path, ...]
    results: tuple[Path, ...]
    others: tuple[Path, ...]

    @property
    def hidden_pictures(self) -> int:
        """Number of hidden files that are named like pictures."""
        return sum(each.suffix.lower() in IMAGES for each in self.hidden)


def list_folder(folder: Path) -> FolderContent:
    """Return the content of a folder. The files are not opened, except those without a known suffix.

    Raises:
        InputError: the folder cannot be read.
    """
    found: dict[str, list[Path]] = {kind: [] for kind in FolderContent.__dataclass_fields__}
    try:
        for path in sorted(folder.iterdir(), key=lambda each: natural_order(each.name)):
            found[_kind(path)].append(path)
    except OSError as error:
        raise InputError(
            f"{quote(folder)} cannot be opened: {(error.strerror or str(error)).lower()}",
            hint="check your rights to it, and that it was not moved meanwhile",
        ) from error
    return FolderContent(**{kind: tuple(paths) for kind, paths in found.items()})


def _kind(path: Path) -> str:
    if is_hidden(path):
        return "hidden"
    suffix = path.suffix.lower()
    if path.is_dir():
        return "results" if suffix == _RESULTS or (path / "study.json").is_file() else "others"
    if not path.is_file():
        return "others"
    if suffix in IMAGES:
        return "pictures"
    # The index of a DICOM disk is no recording.
    if path.name == "DICOMDIR":
        return "others"
    return "recordings" if suffix in RECORDING_SUFFIXES or _is_dicom(path) else "others"


def _is_dicom(path: Path) -> bool:
    """Return whether a file is a DICOM object: archives name them by numbers, without a suffix."""
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False
