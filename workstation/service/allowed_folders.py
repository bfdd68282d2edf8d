"""Find recordings inside the folders that the user allowed, and nowhere else."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from capsule_edge.runtime.errors import CapsuleEdgeError, InputError
from capsule_edge.runtime.recording import FolderContent, is_hidden, list_folder

from ..frames import mark_recording
from .problems import RequestError

__all__ = ["AllowedFolder", "AllowedFolders", "FoundRecording"]

# A folder is listed to this depth and this number of recordings.
_DEPTH, _MOST = 6, 2000


@dataclass(frozen=True)
class AllowedFolder:
    """A folder whose recordings may be opened.

    Attributes:
        id: names the folder in requests.
        name: shown to the user.
        path: resolved path.
    """

    id: str
    name: str
    path: Path


@dataclass(frozen=True)
class FoundRecording:
    """A recording in an allowed folder.

    Attributes:
        path: relative to the folder, with "/".
        target: absolute path.
        size: bytes.
    """

    path: str
    target: Path
    size: int


class AllowedFolders:
    """The folders whose recordings may be opened by path.

    Args:
        folders: existing folders.

    Raises:
        InputError: one of them is no folder that can be read.
    """

    def __init__(self, folders: tuple[Path, ...]) -> None:
        self.folders: list[AllowedFolder] = []
        for folder in folders:
            if not folder.is_dir():
                raise InputError(f"{folder} is no folder", hint="name a folder that holds recordings")
            path = folder.resolve()
            identity = hashlib.sha256(os.fsencode(path)).hexdigest()[:12]
            if all(known.id != identity for known in self.folders):
                self.folders.append(AllowedFolder(identity, path.name or str(path), path))

    def find(self, folder_id: str) -> AllowedFolder:
        """Return a folder by its id.

        Raises:
            RequestError: 404, there is no such folder.
        """
        for folder in self.folders:
            if folder.id == folder_id:
                return folder
        raise RequestError(
            404, "not_found", "there is no such folder", hint="start serve with the folder's path"
        )

    def list(self, folder: AllowedFolder) -> list[FoundRecording]:
        """Return the recordings of a folder and its sub-folders. Links that leave the folder are left out."""
        found: list[FoundRecording] = []
        waiting = [(folder.path, 0)]
        while waiting and len(found) < _MOST:
            place, depth = waiting.pop(0)
            try:
                content = list_folder(place)
            except InputError:
                continue
            found += [each for path in _recordings(place, content) if (each := _inside(folder, path))]
            if depth < _DEPTH:
                folders = [path for path in content.others if path.is_dir() and not path.is_symlink()]
                waiting += [(path, depth + 1) for path in folders]
        return found[:_MOST]

    def resolve(self, folder_id: str, relative: str) -> FoundRecording:
        """Return the recording at a relative path.

        Raises:
            RequestError: 404, there is no recording at this path inside the folder.
        """
        folder = self.find(folder_id)
        refused = RequestError(
            404, "not_found", "the folder has no recording at this path", hint="choose one of GET /v1/folders"
        )
        pure = PurePosixPath(relative)
        parts = pure.parts
        if pure.is_absolute() or not parts or ".." in parts or "\0" in relative or "\\" in relative:
            raise refused
        path = folder.path.joinpath(*parts)
        try:
            if any(is_hidden(Path(part)) for part in parts) or not path.exists():
                raise refused
            parent = list_folder(path.parent)
            kinds = {*parent.recordings, *(each for each in parent.pictures if _is_tiff(each))}
            is_series = path.is_dir() and bool(list_folder(path).pictures)
        except (InputError, OSError, ValueError):
            raise refused from None
        found = _inside(folder, path) if path in kinds or is_series else None
        if found is None:
            raise refused
        return found


def _recordings(place: Path, content: FolderContent) -> list[Path]:
    """Return the recordings of one folder: its files, and the folder itself where it is a series of pictures."""
    tiffs = [path for path in content.pictures if _is_tiff(path)]
    series = content.pictures and not content.recordings and len(content.pictures) > len(tiffs)
    return [*content.recordings, *([place] if series else tiffs)]


def _is_tiff(path: Path) -> bool:
    return path.suffix.lower() in (".tif", ".tiff")


def _inside(folder: AllowedFolder, path: Path) -> FoundRecording | None:
    """Return the recording at ``path``; None for one that lies elsewhere, or has a name that is no Unicode text.

    A series lies elsewhere as soon as one of its pictures does.
    """
    try:
        target = path.resolve(strict=True)
        relative = path.relative_to(folder.path).as_posix()
        relative.encode()
        if relative == "." or not target.is_relative_to(folder.path):
            return None
        return FoundRecording(relative, target, mark_recording(target, (folder.path,)).bytes)
    except (OSError, ValueError, CapsuleEdgeError):
        return None
