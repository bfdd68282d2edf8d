"""The reading workstation: a service on this machine and the page in which a physician reads an examination.

In: recordings, model files and the decisions of a reader. Out: HTTP answers, a log of every decision, reports.
Must not know: training and export. Nothing imports this package except the command line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from capsule_edge.runtime.lazy import lazy_names

if TYPE_CHECKING:
    from .home_folder import remove_opening, write_opening
    from .settings import Settings, default_home
else:
    __getattr__, __dir__ = lazy_names(
        __name__, home_folder="remove_opening write_opening", settings="Settings default_home"
    )

__all__ = ["Settings", "default_home", "remove_opening", "write_opening"]
