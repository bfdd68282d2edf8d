"""Find the length and the colours of new recordings at once, beside the jobs, each in a short process of its own.

A job may read for minutes. A study that waits behind it shows its length and colours all the same. One process is
started ahead: its imports take about as long as the preview itself.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..store import Database, change_study, find_study, last_job, list_unseen_studies
from .limits import Limits
from .process import ReadingProcess, WaitingProcess
from .worker import PreviewOrder, await_preview_order

__all__ = ["PreviewQueue"]

_LOG = logging.getLogger("capsule_edge.workstation")
# Two: a recording on a slow disk does not hold up the next one.
_THREADS = 2
# Listing the frames of a long recording on a slow disk takes this long at most.
_SECONDS = 60.0
# Ask the database again after this time where it could not be read.
_RETRY_S = 2.0


@dataclass(frozen=True)
class _Study:
    id: str
    job_id: str
    order: PreviewOrder


class PreviewQueue:
    """Makes the previews of studies that were not read yet, in the order in which they were added.

    Args:
        database: holds the studies.
        home: folder of the studies.
        limits: of each process; its time is shorter.
        folders: resolved folders that the user allowed.
        notify: as of ``JobQueue``.
    """

    def __init__(
        self,
        database: Database,
        home: Path,
        *,
        limits: Limits,
        folders: tuple[Path, ...],
        notify: Callable[[str, str, str], None],
    ) -> None:
        self._database, self._home, self._folders, self._notify = database, home, folders, notify
        self._limits = replace(limits, seconds=min(_SECONDS, limits.seconds))
        self._changed = threading.Condition()
        self._stopping = False
        # Studies whose preview was begun since the service started: a failed one is not tried again and again.
        self._begun: set[str] = set()
        self._running: dict[str, ReadingProcess | None] = {}
        self._spare: WaitingProcess | None = None
        self._threads = [
            threading.Thread(target=self._work, name=f"previews-{number}", daemon=True)
            for number in range(_THREADS)
        ]

    def start(self) -> None:
        """Begin to work."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End the running processes and wait for the threads."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
            for study_id in list(self._running):
                self._kill(study_id)
        for thread in self._threads:
            if thread.is_alive():
                thread.join()
        self._drop_spare()

    def wake(self) -> None:
        """Look for new studies now. Call it after a transaction that has added one."""
        with self._changed:
            self._changed.notify_all()

    def retry(self, study_id: str) -> None:
        """Make the preview of a study again if it has none: its recording may be readable now."""
        with self._changed:
            self._begun.discard(study_id)
            self._changed.notify_all()

    def leave(self, study_id: str) -> None:
        """End the preview of a study, and wait until no process reads its recording."""
        with self._changed:
            self._begun.add(study_id)
            self._changed.wait_for(lambda: self._running.get(study_id, self) is not None)
            self._kill(study_id)
            self._changed.wait_for(lambda: study_id not in self._running)

    def _kill(self, study_id: str) -> None:
        process = self._running.get(study_id)
        if process is not None:
            process.kill()

    def _work(self) -> None:
        """Make previews until the queue is stopped; the main function of a thread."""
        self._prepare()
        while (study := self._take()) is not None:
            try:
                self._run(study)
            except Exception as error:
                # A study without a preview can be read all the same.
                _LOG.error("a preview ended by %s", type(error).__name__)
            finally:
                with self._changed:
                    self._running.pop(study.id, None)
                    self._changed.notify_all()
                self._prepare()

    def _prepare(self) -> None:
        """Start the process of the next preview, unless it is there."""
        with self._changed:
            if self._spare is None and not self._stopping:
                # Without it, the next preview takes longer.
                with suppress(OSError):
                    self._spare = WaitingProcess(await_preview_order, self._limits)
                self._changed.notify_all()

    def _drop_spare(self) -> None:
        with self._changed:
            spare, self._spare = self._spare, None
        if spare is not None:
            spare.kill()
            spare.stop()

    def _send(self, order: PreviewOrder) -> WaitingProcess:
        """Return a process that has taken the order."""
        with self._changed:
            spare, self._spare = self._spare, None
        if spare is not None:
            if spare.order(order):
                return spare
            spare.stop()
        process = WaitingProcess(await_preview_order, self._limits)
        process.order(order)
        return process

    def _take(self) -> _Study | None:
        """Wait for a study without a preview; None when the queue is stopped."""
        with self._changed:
            while not self._stopping:
                try:
                    study = self._next()
                except Exception as error:
                    _LOG.warning("previews wait: %s", type(error).__name__)
                    self._changed.wait(_RETRY_S)
                    continue
                if study is not None:
                    self._begun.add(study.id)
                    self._running[study.id] = None
                    return study
                self._changed.wait()
        return None

    def _next(self) -> _Study | None:
        with self._database.reading() as connection:
            for row in list_unseen_studies(connection):
                recording = self._home / row.path
                # The demo is rendered by the job that reads it; the job wakes this queue then.
                if row.id in self._begun or (row.origin == "demo" and not recording.exists()):
                    continue
                job = last_job(connection, row.id)
                roots = ((self._home / "studies" / row.id).resolve(), *self._folders)
                return _Study(
                    row.id, "" if job is None else job.id, PreviewOrder(recording, row.title, roots)
                )
        return None

    def _run(self, study: _Study) -> None:
        process = self._send(study.order)
        with self._changed:
            self._running[study.id] = process
            self._changed.notify_all()
            if self._stopping:
                process.kill()
        try:
            for kind, content in process.messages():
                if kind == "preview":
                    self._keep(study, content)
                elif kind == "failed":
                    _LOG.info("no preview: %s", content["code"])
        except BaseException:
            process.kill()
            process.stop()
            raise

    def _keep(self, study: _Study, preview: dict[str, Any]) -> None:
        """Enter a preview, unless the study was deleted or read meanwhile: its result has better colours."""
        with self._database.writing() as connection:
            row = find_study(connection, study.id)
            if row is None or row.sha256 is not None:
                return
            change_study(connection, study.id, preview=preview, frames=preview["frames"])
        self._notify("study", study.id, study.job_id)
        self._notify("partial", study.id, study.job_id)
