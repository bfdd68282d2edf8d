"""Recordings behind addresses that fsspec opens, such as ``s3://bucket/exam.mp4``; and the state of local ones."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from capsule_edge.runtime.errors import InputError, PackageError, UsageError
from capsule_edge.runtime.results import whole_file

from ..packages import load_package
from .addresses import (
    file_name,
    has_password,
    hide_password,
    hide_tokens,
    is_address,
    is_of_the_web,
    is_pattern,
    public_address,
)
from .recording import RecordingState

__all__ = [
    "UnreachableError",
    "absolute_path",
    "fetch_recording",
    "find_remote",
    "look_at",
    "open_store",
]

_BLOCK = 1 << 20


class UnreachableError(InputError):
    """A recording cannot be reached: a disk, share or store is at fault, and not the content of the recording."""

    code = "unreachable"


def absolute_path(path: str | Path) -> Path:
    """Return an absolute path without ``..``, so that one file has one name.

    Symbolic links stay as they are named, except where ``..`` behind a link leads elsewhere than the names say.
    """
    if ".." not in Path(path).parts:
        return Path(path).absolute()
    plain, real = os.path.abspath(path), os.path.realpath(path)
    return Path(plain if os.path.realpath(plain) == real else real)


def open_store(address: str) -> tuple[Any, str]:
    """Return the fsspec file system of an address, and the path in it.

    Raises:
        PackageError: fsspec, or the package for this kind of store, is not installed.
        UnreachableError: the address cannot be understood, or the store refuses the connection.
        UsageError: the address holds a password. It would stand in the manifest, in messages and in the results.
    """
    if has_password(address):
        scheme = address.partition("://")[0].rpartition(":")[2].upper()
        raise UsageError(
            f"the address {public_address(hide_password(address))} holds a password, which would stand in the results",
            hint=f"leave it out and set FSSPEC_{scheme}_USERNAME and FSSPEC_{scheme}_PASSWORD in the environment",
        )
    core = load_package("fsspec.core", needed_for=f"the address {public_address(address)}")
    try:
        store, path = core.url_to_fs(address)
    except ImportError as error:
        scheme = address.partition("://")[0]
        package = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs", "az": "adlfs"}
        raise PackageError(
            f"the address {public_address(address)} needs a package for {scheme}:// that is not installed",
            hint=f"pip install {package.get(scheme, f'the fsspec package for {scheme}')}",
        ) from error
    except Exception as error:
        raise _unreachable(address, error) from error
    return store, path


def find_remote(address: str, suffixes: tuple[str, ...]) -> list[str]:
    """Return the addresses of the recordings that an address names: a file, a folder or a glob.

    Args:
        address: what the user named.
        suffixes: of the files that count in a folder, lower case.
    """
    store, path = open_store(address)
    try:
        if is_pattern(path):
            found = [each for each in store.glob(path) if each.lower().endswith(suffixes)]
        elif not _is_web_file(path, suffixes) and store.isdir(path):
            found = [each for each in store.find(path) if each.lower().endswith(suffixes)]
        else:
            store.info(path)
            return [address]
    except Exception as error:
        raise _unreachable(address, error) from error
    return [_rebuild(store, address, path, each) for each in sorted(found)]


def _is_web_file(path: str, suffixes: tuple[str, ...]) -> bool:
    """Return whether an address of HTTP names a recording. Asked whether it is a folder, fsspec would download it."""
    return is_of_the_web(path) and file_name(path).lower().endswith(suffixes)


def _rebuild(store: Any, address: str, path: str, found: str) -> str:
    """Return the address of a file that was found below another one.

    FTP, SFTP and SMB keep the host apart from the path, so the path alone does not give the address back.
    """
    before, inside = address.rstrip("/"), path.rstrip("/")
    start = before.removesuffix(inside)
    whole = start != before if inside else start.partition("://")[2] != ""
    return start + found if whole and "://" in start else str(store.unstrip_protocol(found))


def look_at(location: str) -> RecordingState:
    """Return the size and the time of the last change of a recording.

    Raises:
        UnreachableError: it is not there or cannot be reached.
        InputError: the path cannot be one.
    """
    if is_address(location):
        store, path = open_store(location)
        try:
            store.invalidate_cache()
            found = store.info(path)
        except Exception as error:
            raise _unreachable(location, error) from error
        return _remote_state(found)
    try:
        status = Path(location).stat()
        if not Path(location).is_dir():
            return RecordingState(status.st_size, status.st_mtime_ns)
        inside = [each.stat() for each in Path(location).iterdir() if each.is_file()]
    except (OSError, ValueError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        kind = UnreachableError if isinstance(error, OSError) else InputError
        raise kind(f"{location} cannot be opened: {reason}", hint="check the path and your rights") from error
    newest = max((each.st_mtime_ns for each in inside), default=status.st_mtime_ns)
    return RecordingState(sum(each.st_size for each in inside), newest)


def fetch_recording(address: str, folder: Path) -> Path:
    """Copy a recording from a store into a folder, whole or not at all, under its own name.

    Raises:
        UnreachableError: the store does not hand it over.
        OutputError: the folder cannot be written.
    """
    store, path = open_store(address)
    target = folder / (file_name(path) or "recording")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        source = store.open(path, "rb")
    except Exception as error:
        raise _unreachable(address, error) from error
    with source, whole_file(target) as temporary, temporary.open("wb") as file:
        while block := _read_block(source, address):
            file.write(block)
    return target


def _read_block(source: Any, address: str) -> bytes:
    try:
        return bytes(source.read(_BLOCK))
    except Exception as error:  # the errors of a store's package have no common kind
        raise _unreachable(address, error) from error


def _remote_state(found: Mapping[str, Any]) -> RecordingState:
    changed = next(
        (found[name] for name in ("mtime", "LastModified", "last_modified") if name in found), None
    )
    if isinstance(changed, datetime):
        changed = changed.timestamp()
    stamp = round(float(changed) * 1e9) if isinstance(changed, int | float) else None
    size = found.get("size")
    return RecordingState(None if size is None else int(size), stamp, str(found.get("ETag") or ""))


def _unreachable(address: str, error: Exception) -> UnreachableError:
    reason = hide_tokens(str(error)) or type(error).__name__
    return UnreachableError(
        f"{public_address(address)} cannot be reached: {reason}",
        hint="check the address, the login and the network",
    )
