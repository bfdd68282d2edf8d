"""Look up the states of recordings without waiting again and again for a share that does not answer.

A share that hangs blocks whoever asks it, so each look runs in a thread that is left behind when it takes too long.
Then the place that does not answer is found: the mounted share, or the highest folder that hangs. Nothing in it is
asked again, so a share of 500 folders costs one wait and not 500.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from capsule_edge.runtime.pipeline import start

from .addresses import is_address, public_address
from .recording import RecordingState
from .remote import UnreachableError, look_at

__all__ = ["SilentError", "StateLookup", "list_shares"]

_MOUNTS = Path("/proc/self/mountinfo")
# File systems that wait for another machine or program. A local one does not hang as a whole.
_SHARED = re.compile(
    r"nfs\d?|cifs|smb\w*|9p|ceph|glusterfs|lustre|afs|beegfs\w*|gpfs|ocfs2|gfs2|fuse(\..+)?|autofs"
)
# Seconds to wait for each folder above a recording that does not answer.
_PROBE_S = 1.0
# Seconds to wait for a recording at least, however many places did not answer.
_LEAST_S = 1.0


class SilentError(UnreachableError):
    """The place of a recording does not answer."""


class StateLookup:
    """Look up the states of recordings, one after the other. For one thread.

    Args:
        patience_s: seconds to wait for a recording. Each place that does not answer halves it for those that follow.
    """

    def __init__(self, patience_s: float = 30.0) -> None:
        self._patience_s = patience_s
        self._silent: list[str] = []

    def look(self, location: str) -> RecordingState:
        """Return the size and the time of the last change of a recording.

        Raises:
            SilentError: its place does not answer.
            UnreachableError: it is not there or cannot be reached.
            InputError: the path cannot be one.
            PackageError: a package that an address needs is not installed.
        """
        self.check(location)
        patience_s = max(_LEAST_S, self._patience_s / 2 ** len(self._silent))
        try:
            return start(lambda: look_at(location), name="look").result(
                timeout=min(patience_s, self._patience_s)
            )
        except TimeoutError:
            self._silent.append(_find_silent_place(location))
        self.check(location)
        raise _silence(public_address(location))

    def check(self, location: str) -> None:
        """Check that a recording is not at a place that did not answer. The place is not asked.

        Raises:
            SilentError: it is.
        """
        for place in self._silent:
            if _is_in(location, place):
                raise _silence(place)


def list_shares(text: str) -> list[str]:
    """Return the folders at which shares are mounted.

    Args:
        text: of ``/proc/self/mountinfo``, as proc(5) describes it.
    """
    found = []
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split()
        if len(fields) > 4 and after and _SHARED.fullmatch(after.split()[0]):
            found.append(re.sub(r"\\(\d{3})", lambda code: chr(int(code[1], 8)), fields[4]))
    return found


def _silence(place: str) -> SilentError:
    return SilentError(
        f"{place} does not answer", hint="check the share or the network and run the command again"
    )


def _is_in(location: str, place: str) -> bool:
    location, place = (each.replace("\\", "/").rstrip("/") for each in (location, place))
    return location == place or location.startswith(place + "/")


def _find_silent_place(location: str) -> str:
    """Return the place around a recording that does not answer."""
    if is_address(location):
        scheme, _, rest = location.partition("://")
        return f"{scheme}://{rest.partition('/')[0]}"
    shares = []
    with suppress(OSError):
        # This file is made by the kernel, which asks no share for it.
        shares = [
            share for share in list_shares(_MOUNTS.read_text("utf-8", "replace")) if _is_in(location, share)
        ]
    return (
        max(shares, key=len, default=None)
        or _first_silent(Path(location).parents)
        or str(Path(location).parent)
    )


def _first_silent(parents: Iterable[Path]) -> str | None:
    """Return the highest folder that does not answer; None if all do."""
    for folder in sorted(parents, key=lambda each: len(each.parts)):
        try:
            start(lambda folder=folder: os.stat(folder), name="probe").result(timeout=_PROBE_S)  # type: ignore[misc]
        except TimeoutError:
            return str(folder)
        except OSError:
            continue
    return None
