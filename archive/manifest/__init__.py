"""The manifest of an archive: what became of each recording, and the lease of the one driver that may write it.

In: rows, one a recording. Out: numbered files that never change, and the newest row of each recording.
Must not know: how a recording is read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from capsule_edge.runtime.lazy import lazy_names

if TYPE_CHECKING:
    from .lease import Lease, hold_lease
    from .log import Manifest, Summary
    from .row import READ_STATES, Row, State
    from .segments import choose_segments
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        lease="Lease hold_lease",
        log="Manifest Summary",
        row="READ_STATES Row State",
        segments="choose_segments",
    )

__all__ = ["READ_STATES", "Lease", "Manifest", "Row", "State", "Summary", "choose_segments", "hold_lease"]
