"""Open a run folder: lock it, start or resume a run in it, and clean up what a crash left.

Example:
    with open_run("exam.capsule-edge", resume=True) as run:
        study = reader.read("exam.mp4", journal=run.journal)
        write_study(study, run.folder, timing={}, colours=study.colours)
        run.journal.discard()
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import OutputError, UsageError
from .atomic import clear_leftovers
from .files import FILES, prepare_folder
from .journal import Journal
from .lock import lock_folder

__all__ = ["Run", "open_run"]


@dataclass(frozen=True)
class Run:
    """An open run folder.

    Attributes:
        folder: the folder, which this run has locked.
        journal: the journal of the answered frames.
        finished: the ``study.json`` in the folder, if the run to be resumed is complete already; else None.
    """

    folder: Path
    journal: Journal
    finished: dict[str, Any] | None = None


@contextmanager
def open_run(
    folder: str | os.PathLike[str], *, overwrite: bool = False, resume: bool = False
) -> Iterator[Run]:
    """Create and lock a run folder while the block runs.

    After the block the journal stays if it holds answered frames, so that the run can be resumed. Otherwise it is
    removed; a folder that this call created and that stayed empty is removed when the block raises an error.

    Args:
        folder: the result folder; its parents are created too.
        overwrite: replace an earlier study and discard an interrupted run. The earlier study stays until the new one
            is written.
        resume: continue an interrupted run; without one, start a new run.

    Raises:
        UsageError: both options are given.
        OutputError: another run has locked the folder, it cannot be written, or it holds a study or an interrupted run
            and neither option is given.
    """
    if overwrite and resume:
        raise UsageError("overwrite starts over and resume continues", hint="give one of them")
    folder = Path(folder)
    with (
        _new_folders_removed_on_error(folder),
        lock_folder(prepare_folder(folder, overwrite=overwrite or resume)),
    ):
        # Check again: another run may have ended here before the lock was taken.
        prepare_folder(folder, overwrite=overwrite or resume)
        clear_leftovers(folder, FILES)
        with Journal(folder) as journal:
            if overwrite:
                journal.discard()
            interrupted = journal.is_there
            if interrupted and not resume:
                raise OutputError(
                    f"{folder} holds an interrupted run",
                    hint="continue it with --resume, start over with --overwrite, or choose another --out",
                )
            try:
                yield Run(folder, journal, _finished(folder) if resume and not interrupted else None)
            finally:
                if not journal.is_there:
                    journal.discard()


@contextmanager
def _new_folders_removed_on_error(folder: Path) -> Iterator[None]:
    """If the block raises an error, remove those of the folder and its parents that are new and empty."""
    made: list[Path] = []
    with suppress(OSError, ValueError):
        made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        yield
    except BaseException:
        for path in made:
            with suppress(OSError):
                path.rmdir()
        raise


def _finished(folder: Path) -> dict[str, Any] | None:
    """Return the ``study.json`` in the folder, None if there is none."""
    path = folder / "study.json"
    try:
        document = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise OutputError(f"{path} cannot be read: {error}", hint="start over with --overwrite") from None
    return document if isinstance(document, dict) else None
