"""A study to files: the result folder, its lock and journal, ``study.json`` and ``frames.csv``.

In: a ``Study``. Out: files that are whole or absent, and byte-identical for equal studies.
Must not know: decoders and engines.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazy_names

if TYPE_CHECKING:
    from .atomic import commit_files
    from .document import rounded
    from .files import event_document, ledger_document, prepare_folder, study_document, write_study
    from .journal import Journal, entries
    from .run_folder import Run, open_run
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        atomic="commit_files",
        document="rounded",
        files="event_document ledger_document prepare_folder study_document write_study",
        journal="Journal entries",
        run_folder="Run open_run",
    )

__all__ = [
    "Journal",
    "Run",
    "commit_files",
    "entries",
    "event_document",
    "ledger_document",
    "open_run",
    "prepare_folder",
    "rounded",
    "study_document",
    "write_study",
]
