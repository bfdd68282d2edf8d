"""Turn what the user names into recordings: folders and those in them, globs, lists, addresses, single files."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

from capsule_edge.runtime.errors import InputError
from capsule_edge.runtime.pipeline import start
from capsule_edge.runtime.recording import RECORDING_SUFFIXES, list_folder

from .addresses import is_address, public_address
from .recording import Recording
from .recording_list import LIST_SUFFIXES, read_list
from .remote import absolute_path, find_remote

__all__ = ["list_recordings"]

_GLOB = frozenset("*?[")


def list_recordings(
    sources: Sequence[str], *, leave_out: Path | None = None, patience_s: float = 60.0
) -> list[Recording]:
    """Return the recordings that sources name, each once.

    A row of a list that is wrong becomes a recording with a ``fault``. So does a source that does not answer in time,
    one that holds no recording, and a folder that cannot be listed, so that the others are read.

    Args:
        sources: folders, which are searched with their subfolders; globs; lists (``.csv`` or ``.parquet``); addresses;
            or recordings.
        leave_out: a folder that is not searched: the archive's own.
        patience_s: seconds to wait for the listing of one source.

    Raises:
        InputError: a source is not there, or a list cannot be read.
        UsageError: an address holds a password.
        PackageError: a package that a source needs is not installed.
    """
    found: dict[str, Recording] = {}
    named_by: dict[str, list[str]] = {}
    for source in sources:
        for recording in _list_in_time(source, leave_out, patience_s):
            named_by.setdefault(recording.location, []).append(recording.source)
            known = found.setdefault(recording.location, recording)
            if known.fault and not recording.fault:
                found[recording.location] = recording
            elif known != recording and not recording.fault and not _adds_nothing(recording):
                if _adds_nothing(known):
                    found[recording.location] = recording
                else:
                    place = f"{recording.location} (again, in {recording.source})"
                    fault = "the recording is listed twice, with other facts"
                    found[place] = Recording(place, fault=fault, source=recording.source)
    return [
        replace(recording, sources=tuple(named_by.get(recording.location, [recording.source])))
        for recording in found.values()
    ]


def _adds_nothing(recording: Recording) -> bool:
    return recording == Recording(recording.location)


def _list_in_time(source: str, leave_out: Path | None, patience_s: float) -> list[Recording]:
    # In a thread: a share that hangs would keep the caller for ever.
    listing: Future[list[Recording]] = start(lambda: list(_list(source, leave_out)), name="listing")
    name = public_address(source) if is_address(source) else os.path.abspath(source)
    try:
        found = listing.result(timeout=patience_s)
    except TimeoutError:
        found = [Recording(name, fault=f"{name} did not answer within {patience_s:.0f} s", cause="source")]
    except OSError as error:
        found = [_unlisted(name, (error.strerror or str(error)).lower())]
    return [replace(recording, source=name) for recording in found or [_nothing(name)]]


def _list(source: str, leave_out: Path | None) -> Iterator[Recording]:
    if is_address(source):
        yield from map(Recording, find_remote(source, RECORDING_SUFFIXES))
        return
    path = Path(source)
    if path.suffix.lower() in LIST_SUFFIXES and not path.is_dir():
        yield from read_list(path)
    elif path.exists():
        yield from _expand(path, leave_out)
    elif _GLOB & set(source):
        matches = sorted(glob.glob(source, recursive=True))
        if not matches:
            raise InputError(f"no file fits {source}", hint="check the pattern, and put it in quotes")
        for match in matches:
            yield from _expand(Path(match), leave_out)
    else:
        raise InputError(f"{source} is not there", hint="name a folder, a recording, a list or a pattern")


def _expand(path: Path, leave_out: Path | None) -> Iterator[Recording]:
    path = absolute_path(path)
    if not path.is_dir():
        yield Recording(str(path))
    else:
        yield from _search(path, leave_out)


def _is_same(folder: Path, other: Path) -> bool:
    """Return whether two paths name one folder: with ``..``, through a link, or in another case."""
    try:
        return folder.samefile(other)
    except OSError:  # the other one is not there yet
        return False


def _search(folder: Path, leave_out: Path | None) -> Iterator[Recording]:
    """Yield the recordings in a folder and its subfolders. A folder with pictures and no recording is one, too.

    A folder that cannot be listed becomes a recording with a fault, and the others are listed. So do pictures beside
    recordings: nobody can tell a series from the pictures of a report.
    """
    if leave_out is not None and _is_same(folder, leave_out):
        return
    try:
        content = list_folder(folder)
        inner = [each for each in content.others if each.is_dir() and not each.is_symlink()]
    except InputError as error:
        yield Recording(str(folder), fault=error.message, cause="source")
        return
    except OSError as error:
        yield _unlisted(str(folder), (error.strerror or str(error)).lower())
        return
    yield from (Recording(str(each)) for each in content.recordings)
    if content.pictures and content.recordings:
        count = len(content.pictures)
        fault = f"{count:,} {'picture' if count == 1 else 'pictures'} beside recordings"
        fault += "; to read pictures, move them to a folder of their own"
        yield Recording(str(folder), fault=fault, cause="passed_over")
    elif content.pictures:
        yield Recording(str(folder))
    for each in inner:
        yield from _search(each, leave_out)


def _nothing(name: str) -> Recording:
    return Recording(name, fault="it holds no recording", cause="passed_over")


def _unlisted(name: str, reason: str) -> Recording:
    return Recording(name, fault=f"{name} cannot be listed: {reason}", cause="source")
