"""Make the home folder, which holds data of patients, so that no other user of the machine can read it."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from html import escape
from pathlib import Path

from capsule_edge.runtime.errors import OutputError
from capsule_edge.runtime.results import LOCK

__all__ = ["make_home", "remove_opening", "write_opening"]

# Opened by ``capsule-edge serve --open``; it holds the token.
_OPENING = "open.html"
_DATABASE = "workstation.sqlite"
_OWN = ("studies", "models", "uploads", _OPENING, _DATABASE, f"{_DATABASE}-wal", f"{_DATABASE}-shm")


def make_home(home: Path) -> None:
    """Make the home folder where there is none, and take the rights of other users from one that is there.

    Folders on the way are made as usual. A folder that holds other things as well keeps its rights, since others may
    need those; the workstation's own entries in it are closed.

    Args:
        home: the folder.

    Raises:
        OutputError: the folder cannot be made, or its rights cannot be changed.
    """
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        if os.name == "posix":
            _close_to_others(home)
    except OSError as error:
        raise OutputError(
            f"the home folder {home} cannot be made: {(error.strerror or str(error)).lower()}",
            hint="choose another --home",
        ) from error


def write_opening(home: Path, address: str) -> Path:
    """Write a page that leads to an address, and return its path. Only the user of the home folder can read it.

    Other users see the arguments of each process, so a browser that is started with the address would show them the
    token.

    Args:
        home: the home folder.
        address: with the token.

    Raises:
        OutputError: the page cannot be written.
    """
    path = home / _OPENING
    page = (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="referrer" content="no-referrer">'
        f'<meta http-equiv="refresh" content="0; url={escape(address)}"><title>capsule-edge</title>'
        f'<a href="{escape(address)}">Open the reading workstation</a></html>\n'
    )
    try:
        path.unlink(missing_ok=True)
        # "x" and the mode: an own new file from its first byte on, not one that another program left open.
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(page)
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written: {(error.strerror or str(error)).lower()}",
            hint="leave --open out and open the address that is printed",
        ) from error
    return path


def remove_opening(home: Path) -> None:
    """Remove the page of ``write_opening``, also one that a service left that was killed. It holds a token.

    Args:
        home: the home folder, which no other service uses.
    """
    with suppress(OSError):
        (home / _OPENING).unlink()


def _close_to_others(home: Path) -> None:
    names = {path.name for path in home.iterdir()}
    closed = [home / name for name in _OWN if name in names]
    if names <= {*_OWN, LOCK}:
        closed.insert(0, home)
    for path in closed:
        # SQLite removes its files beside the database when the last program closes it.
        with suppress(FileNotFoundError):
            status = path.lstat()
            mode = stat.S_IMODE(status.st_mode)
            if mode & 0o077 and not stat.S_ISLNK(status.st_mode):
                path.chmod(mode & 0o700)
