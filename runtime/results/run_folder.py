"""A run in its folder: one at a time, begun anew or gone on with, and what it must not leave behind.

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
    """A folder held by this run. ``finished`` is the ``study.json`` of a whole run that was to be resumed."""

    folder: Path
    journal: Journal
    finished: dict[str, Any] | None = None


@contextmanager
def open_run(
    folder: str | os.PathLike[str], *, overwrite: bool = False, resume: bool = False
) -> Iterator[Run]:
    """Make the folder ready and hold it. On leaving, a journal with answers stays; without any, nothing does.

    Args:
        overwrite: replace an earlier study, forget an interrupted run. Until the new study is whole, the
            earlier one stays.
        resume: go on with an interrupted run; where there is none, a new one begins.

    Raises ``UsageError`` for both, and ``OutputError`` when another run holds the folder, when it holds a
    study or an interrupted run and neither was asked for, and when it cannot be written.
    """
    if overwrite and resume:
        raise UsageError("overwrite starts over and resume goes on", hint="give one of them")
    folder = Path(folder)
    made: list[Path] = []
    with suppress(OSError, ValueError):
        made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        with lock_folder(prepare_folder(folder, overwrite=overwrite or resume)):
            # Once more: another run may just have ended here.
            prepare_folder(folder, overwrite=overwrite or resume)
            clear_leftovers(folder, FILES)
            with Journal(folder) as journal:
                if overwrite:
                    journal.discard()
                interrupted = journal.is_there
                if interrupted and not resume:
                    raise OutputError(
                        f"{folder} holds an interrupted run",
                        hint="go on with --resume, start over with --overwrite, or choose another --out",
                    )
                try:
                    yield Run(folder, journal, _finished(folder) if resume and not interrupted else None)
                finally:
                    if not journal.is_there:
                        journal.discard()
    except BaseException:
        for path in made:
            with suppress(OSError):
                path.rmdir()
        raise


def _finished(folder: Path) -> dict[str, Any] | None:
    path = folder / "study.json"
    try:
        document = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise OutputError(f"{path} cannot be read: {error}", hint="start over with --overwrite") from None
    return document if isinstance(document, dict) else None
