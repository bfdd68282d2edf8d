"""Write a study to its result folder: ``study.json``, ``frames.csv``, the folder's lock and the journal of a run.

In: a ``Study``, or the results of its batches. Out: files, each whole or absent; equal studies give equal bytes.
Must not know: decoders and inference engines.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazy_names

if TYPE_CHECKING:
    from .atomic import clear_abandoned, commit_files, whole_file, write_whole
    from .document import rounded
    from .files import (
        event_document,
        ledger_document,
        prepare_folder,
        study_document,
        warnings_document,
        write_study,
    )
    from .journal import Journal, entries
    from .lock import LOCK, lock_folder
    from .run_folder import Run, open_run
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        atomic="clear_abandoned commit_files whole_file write_whole",
        document="rounded",
        files="event_document ledger_document prepare_folder study_document warnings_document write_study",
        journal="Journal entries",
        lock="LOCK lock_folder",
        run_folder="Run open_run",
    )

__all__ = [
    "LOCK",
    "Journal",
    "Run",
    "clear_abandoned",
    "commit_files",
    "entries",
    "event_document",
    "ledger_document",
    "lock_folder",
    "open_run",
    "prepare_folder",
    "rounded",
    "study_document",
    "warnings_document",
    "whole_file",
    "write_study",
    "write_whole",
]
