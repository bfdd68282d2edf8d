"""The lease of an archive: one driver at a time writes to it, also when drivers run on several machines.

On one machine the lock of the folder decides, which dies with its process. Between machines, whose locks may not see
each other on a share, a file says until when the driver's lease lasts; the driver renews it while it works. A dead
driver's lease is taken over at once on its own machine, and on another one when it has run out.
"""

from __future__ import annotations

import json
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from capsule_edge.runtime.errors import OutputError
from capsule_edge.runtime.results import lock_folder, write_whole

__all__ = ["Lease", "hold_lease"]

FILE = "lease.json"
_LASTS_S = 60.0
_RENEW_S = 10.0
_BOOT = Path("/proc/sys/kernel/random/boot_id")


class Lease:
    """The lease of a driver that holds it. Call ``renew`` at least every few seconds."""

    def __init__(self, path: Path) -> None:
        self._path, self._holder = path, uuid.uuid4().hex
        # By both clocks: the monotonic one stands still while the machine sleeps.
        self._renewed, self._renewed_at = 0.0, 0.0

    def take(self) -> None:
        """Take the lease.

        Raises:
            OutputError: a driver on another machine holds it.
        """
        found = self._read()
        if found is not None and found.get("machine") != _machine():
            left = float(str(found.get("until", 0))) - time.time()
            if left > 0:
                raise OutputError(
                    f"another driver, on {found.get('host')}, writes to {self._path.parent}",
                    hint=f"wait until it has ended; if it died, its lease runs out in {left:.0f} s",
                )
        self._write()

    def renew(self) -> None:
        """Renew the lease where it is due.

        Raises:
            OutputError: another driver has taken it.
        """
        passed = time.monotonic() - self._renewed, abs(time.time() - self._renewed_at)
        if max(passed) < _RENEW_S:
            return
        self.check()
        self._write()

    def check(self) -> None:
        """Check that this driver holds the lease. Call it before each write that another driver must not see twice.

        Raises:
            OutputError: another driver has taken it.
        """
        found = self._read()
        if found is None or found.get("holder") != self._holder:
            raise OutputError(
                f"another driver has taken over {self._path.parent}",
                hint="this one stopped; what it had recorded is kept",
            )

    def release(self) -> None:
        """Give the lease back, if it is still this driver's."""
        found = self._read()
        if found is not None and found.get("holder") == self._holder:
            with suppress(OSError):
                self._path.unlink()

    def _read(self) -> dict[str, object] | None:
        try:
            found = json.loads(self._path.read_text("utf-8"))
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def _write(self) -> None:
        document = {
            "holder": self._holder,
            "host": socket.gethostname(),
            "machine": _machine(),
            "until": time.time() + _LASTS_S,
        }
        write_whole(self._path, json.dumps(document).encode())
        self._renewed, self._renewed_at = time.monotonic(), time.time()


@contextmanager
def hold_lease(folder: Path) -> Iterator[Lease]:
    """Hold the lease of an archive's folder while the block runs.

    Raises:
        OutputError: another driver holds it, or the folder cannot be written.
    """
    with lock_folder(folder):
        lease = Lease(folder / FILE)
        lease.take()
        try:
            yield lease
        finally:
            lease.release()


def _machine() -> str:
    """Return a name that no other machine has, and this one only until it is started anew."""
    with suppress(OSError):
        return f"{socket.gethostname()} {_BOOT.read_text('ascii').strip()}"
    return socket.gethostname()
