"""Read a DICOMDIR, which names the objects on a disk or in a folder (PS3.3, annex F; PS3.10, 8.6)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import InputError
from .dicom_header import named, quiet
from .ffmpeg import quote

__all__ = ["list_directory"]

# VL Endoscopic Image and Video Endoscopic Image (PS3.4, table B.5-1), and their multi-frame relatives.
_ENDOSCOPIC = ("1.2.840.10008.5.1.4.1.1.77.1.1", "1.2.840.10008.5.1.4.1.1.77.1.1.1")
_MOST_BYTES = 1 << 27


def list_directory(path: Path) -> list[Path]:
    """Return the files of the endoscopic objects that a DICOMDIR names, in its order.

    Raises:
        InputError: the DICOMDIR is damaged, names no such object, or names a file outside its folder or one that is
            not there.
        PackageError: pydicom is not installed.
    """
    if path.stat().st_size > _MOST_BYTES:
        raise InputError(
            f"{quote(path)} has {path.stat().st_size:,} bytes, allowed are {_MOST_BYTES:,}",
            hint="name the file of the recording",
        )
    names = quiet(path, lambda pydicom: _list_names(pydicom.dcmread(path)))
    files = [_find(path, name) for name in names]
    if not files:
        raise InputError(
            f"{quote(path)} names no endoscopic object, {named('DirectoryRecordSequence')}",
            hint="name the file of the recording",
        )
    return list(dict.fromkeys(files))


def _list_names(dataset: Any) -> list[tuple[str, ...]]:
    names = []
    for record in dataset.get("DirectoryRecordSequence") or ():
        file = record.get("ReferencedFileID")
        if file and str(record.get("ReferencedSOPClassUIDInFile", "")) in _ENDOSCOPIC:
            names.append((file,) if isinstance(file, str) else tuple(str(part) for part in file))
    return names


def _find(directory: Path, name: tuple[str, ...]) -> Path:
    """Return the file of this name, whose parts are folders and the file."""
    hint = "copy the whole disk again"
    if not all(part.strip(".") and part.isprintable() and not {*part} & {*"/\\:"} for part in name):
        raise InputError(
            f"{quote(directory)} names a file outside its folder, {named('ReferencedFileID')}", hint=hint
        )
    file = directory.parent.joinpath(*name)
    if not file.is_file() or not file.resolve().is_relative_to(directory.parent.resolve()):
        raise InputError(
            f"{quote(directory)} names {quote(Path(*name))}, {named('ReferencedFileID')}, which is not there",
            hint=hint,
        )
    return file
