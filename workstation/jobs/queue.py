"""Read queued studies in the order in which they were added, each in a process of its own.

The state of a job is in the database, so a service that is killed goes on where it stopped: a job that ran is queued
again at the next start, and its journal keeps the frames that were answered.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa

from capsule_edge.runtime.errors import CapsuleEdgeError

from ..models import ModelFolder, engine_of
from ..store import (
    OPEN_STATES,
    ConflictError,
    Database,
    NotFoundError,
    add_result,
    change_job,
    change_study,
    find_job,
    find_study,
    list_jobs,
    requeue_running,
    take_next_job,
    utc_now,
)
from .limits import Limits
from .previews import PreviewQueue
from .process import ReadingProcess
from .worker import ReadOrder, read_order

__all__ = ["JobProgress", "JobQueue"]

_LOG = logging.getLogger("capsule_edge.workstation")
# A process that ends without a word is started again, this many times in all.
_ATTEMPTS = 3
# Ask the database again after this time where it could not be read or written.
_RETRY_S = 2.0

T = TypeVar("T")


@dataclass
class JobProgress:
    """Progress of a running job. It is not kept in the database.

    Attributes:
        frames_done, frames_total: frames answered, and frames wanted; None until that is known.
        events: events that have closed so far, as in ``study.json``.
    """

    frames_done: int = 0
    frames_total: int | None = None
    events: list[dict[str, Any]] = field(default_factory=list)


class JobQueue:
    """The jobs of a workstation.

    Args:
        database: holds the jobs.
        models: the models to read with.
        home: folder of the studies.
        limits: of each reading process.
        workers: number of recordings that are read at the same time.
        folders: resolved folders that the user allowed.
        notify: called with a kind (``job``, ``study``, ``partial``), the id of the study and that of the job, from any
            thread, after something has changed.
    """

    def __init__(
        self,
        database: Database,
        models: ModelFolder,
        home: Path,
        *,
        limits: Limits,
        workers: int = 1,
        folders: tuple[Path, ...] = (),
        notify: Callable[[str, str, str], None] = lambda kind, study_id, job_id: None,
    ) -> None:
        self._database, self._models, self._home = database, models, home
        self._limits, self._folders, self._notify = limits, folders, notify
        self._previews = PreviewQueue(
            database,
            home,
            limits=limits,
            folders=folders,
            notify=self._announce,
        )
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._processes: dict[str, ReadingProcess | None] = {}
        self._progress: dict[str, JobProgress] = {}
        self._deleted: set[str] = set()
        self.frames_read = 0
        self._threads = [
            threading.Thread(target=self._work, name=f"jobs-{number}", daemon=True)
            for number in range(workers)
        ]

    def start(self) -> None:
        """Queue the jobs again that ran when the service ended, and begin to work."""
        with self._database.writing() as connection:
            requeue_running(connection)
        self._previews.start()
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End the running processes and wait for the threads. Their jobs go on at the next start."""
        self._stopping.set()
        with self._changed:
            self._changed.notify_all()
            for process in self._processes.values():
                if process is not None:
                    process.kill()
        self._previews.stop()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()

    def wake(self) -> None:
        """Look for queued jobs now. Call it after a transaction that has queued one."""
        with self._changed:
            self._changed.notify_all()
        self._previews.wake()

    def progress(self, job_id: str) -> JobProgress | None:
        """Return how far a running job is; None for a job that does not run."""
        with self._changed:
            return self._progress.get(job_id)

    def cancel(self, job_id: str) -> None:
        """Cancel a queued or running job. Frames that were answered are kept for a later try.

        Raises:
            ConflictError: the job has ended already.
        """
        with self._database.writing() as connection:
            job = _existing(connection, job_id)
            if job.state not in OPEN_STATES:
                raise ConflictError(f"the job is {job.state}, only a queued or running one can be cancelled")
            change_job(connection, job_id, state="cancelled", finished_at=utc_now())
        self._kill(job_id)
        self._notify("job", job.study_id, job_id)
        self._notify("study", job.study_id, job_id)

    def retry(self, job_id: str) -> None:
        """Queue a job again that failed or was cancelled.

        Raises:
            ConflictError: the job has not failed and was not cancelled, or its study is being deleted.
        """
        with self._changed:
            # A cancelled process may still be ending.
            self._changed.wait_for(lambda: job_id not in self._processes, timeout=_RETRY_S)
        with self._database.writing() as connection:
            job = _existing(connection, job_id)
            if job.state not in ("failed", "cancelled"):
                raise ConflictError(
                    f"the job is {job.state}, only a failed or cancelled one can be tried again"
                )
            self.check_wanted(job.study_id)
            change_job(
                connection,
                job_id,
                state="queued",
                attempts=0,
                error=None,
                started_at=None,
                finished_at=None,
            )
            change_study(connection, job.study_id, error=None)
        self._previews.retry(job.study_id)
        self.wake()
        self._notify("job", job.study_id, job_id)
        self._notify("study", job.study_id, job_id)

    def check_wanted(self, study_id: str) -> None:
        """Call in the transaction that queues a job.

        Raises:
            ConflictError: the study is being deleted.
        """
        if study_id in self._deleted:
            raise ConflictError("the study is being deleted", hint="reload the list of studies")

    @contextmanager
    def deleting(self, study_id: str) -> Iterator[None]:
        """Cancel all jobs of a study, wait until no process reads it, and refuse new jobs while the block runs.

        Raises:
            ConflictError: the study is being deleted already.
        """
        with self._database.writing():
            # Whoever queues a job holds the same lock: it came before and is cancelled below, or it is refused.
            self.check_wanted(study_id)
            self._deleted.add(study_id)
        try:
            self._leave(study_id)
            yield
        finally:
            self._deleted.discard(study_id)

    def _leave(self, study_id: str) -> None:
        """Cancel all jobs of a study and wait until no process reads it any more."""
        with self._database.writing() as connection:
            open_jobs = [job.id for job in list_jobs(connection, study_id=study_id, limit=10_000)]
            for job_id in open_jobs:
                job = find_job(connection, job_id)
                if job is not None and job.state in OPEN_STATES:
                    change_job(connection, job_id, state="cancelled", finished_at=utc_now())
        for job_id in open_jobs:
            self._kill(job_id)
        with self._changed:
            self._changed.wait_for(lambda: not any(job_id in self._processes for job_id in open_jobs))
        self._previews.leave(study_id)

    def wait(self, job_id: str, *, timeout_s: float) -> bool:
        """Wait until a job neither waits nor runs. Return False if it still does after ``timeout_s``."""

        def has_ended() -> bool:
            with self._database.reading() as connection:
                job = find_job(connection, job_id)
            return job_id not in self._processes and (job is None or job.state not in OPEN_STATES)

        with self._changed:
            return self._changed.wait_for(has_ended, timeout_s)

    def _kill(self, job_id: str) -> None:
        with self._changed:
            process = self._processes.get(job_id)
            if process is not None:
                process.kill()

    def _work(self) -> None:
        """Run jobs until the queue is stopped; the main function of a thread.

        The thread outlives every error of a job: without it, no study would be read until the next start.
        """
        while (job := self._take()) is not None:
            try:
                self._run(job)
            except Exception as error:
                self._recover(job, error)
            finally:
                with self._changed:
                    self._processes.pop(job.id, None)
                    self._progress.pop(job.id, None)
                    self._changed.notify_all()
                self._tell("job", job)
                self._tell("study", job)

    def _recover(self, job: sa.Row[Any], error: Exception) -> None:
        """Queue a job again that an unexpected error ended, or fail it after the last attempt. Only stopping raises."""
        # The text of an error may hold paths and names of patients.
        kind = type(error).__name__
        _LOG.error("a job ended by %s", kind)
        # Without the pause, a lack of memory or processes would use up the attempts in an instant.
        while not self._stopping.wait(_RETRY_S):
            try:
                if job.attempts < _ATTEMPTS:
                    self._persistently(lambda connection: _set_if_running(connection, job.id, state="queued"))
                else:
                    self._fail(
                        job,
                        {
                            "code": "internal",
                            "message": f"the reading was tried {_ATTEMPTS} times and ended by {kind}",
                            "hint": "restart the workstation and try again; if it fails again, report it",
                        },
                    )
                return
            except Exception as again:
                _LOG.error("a job could not be ended: %s", type(again).__name__)

    def _tell(self, kind: str, job: sa.Row[Any]) -> None:
        self._announce(kind, job.study_id, job.id)

    def _announce(self, kind: str, study_id: str, job_id: str) -> None:
        """Notify of a change. An error of the receiver does not end the work."""
        try:
            self._notify(kind, study_id, job_id)
        except Exception as error:
            _LOG.error("a change of a job was not announced: %s", type(error).__name__)

    def _take(self) -> sa.Row[Any] | None:
        """Wait for a queued job and mark it as running; None when the queue is stopped."""
        while not self._stopping.is_set():
            with self._changed:
                try:
                    with self._database.writing() as connection:
                        job = take_next_job(connection)
                    if job is not None:
                        self._processes[job.id] = None
                        self._progress[job.id] = JobProgress()
                        return job
                    self._changed.wait()
                except Exception as error:
                    _LOG.warning("jobs wait: %s", type(error).__name__)
                    self._changed.wait(_RETRY_S)
        return None

    def _run(self, job: sa.Row[Any]) -> None:
        self._tell("job", job)
        self._tell("study", job)
        try:
            order = self._order(job)
        except CapsuleEdgeError as error:
            self._fail(job, {"code": error.code, "message": error.message, "hint": error.hint})
            return
        if order is None:  # the study was deleted meanwhile
            return
        process = ReadingProcess(read_order, (order,), self._limits)
        with self._changed:
            self._processes[job.id] = process
        # A cancellation, or the end of the service, may have come before the process could be killed.
        if self._stopping.is_set() or not self._is_running(job.id):
            process.kill()
        try:
            last = self._follow(job, process)
        except BaseException:
            process.kill()
            process.stop()
            raise
        if self._stopping.is_set() and last is None:
            return
        self._settle(job, process, last, order.title)

    def _follow(self, job: sa.Row[Any], process: ReadingProcess) -> tuple[str, dict[str, Any]] | None:
        """Take over the messages of a process until it ends. Return its result or error; None if it sent neither."""
        last: tuple[str, dict[str, Any]] | None = None
        for kind, content in process.messages():
            if kind in ("done", "failed"):
                last = kind, content
            else:
                self._note(job, kind, content)
        return last

    def _order(self, job: sa.Row[Any]) -> ReadOrder | None:
        """Return the order for a job; None where its study is gone."""
        study = self._persistently(lambda connection: find_study(connection, job.study_id))
        if study is None:
            return None
        model = self._models.path_of(job.model_sha256)
        options: dict[str, Any] = {**job.options}
        return ReadOrder(
            recording=self._home / study.path,
            roots=((self._home / "studies" / job.study_id).resolve(), *self._folders),
            title=study.title if len(study.title) <= 80 else f"{study.title[:79]}\u2026",
            folder=self._home / "studies" / job.study_id / "results" / job.id,
            model=model,
            backend=engine_of(model),
            sha256=study.sha256,
            options=options,
            demo=study.origin == "demo",
        )

    def _note(self, job: sa.Row[Any], kind: str, content: dict[str, Any]) -> None:
        """Take over a message of a running process."""
        with self._changed:
            progress = self._progress[job.id]
            if kind == "progress":
                self.frames_read += max(0, content["frames_done"] - progress.frames_done)
                progress.frames_done = content["frames_done"]
                progress.frames_total = content["frames_total"]
            elif kind == "partial":
                progress.events = content["events"]
        if kind == "rendered":
            self._previews.wake()
            return
        self._tell("job" if kind == "progress" else "partial", job)

    def _settle(
        self,
        job: sa.Row[Any],
        process: ReadingProcess,
        last: tuple[str, dict[str, Any]] | None,
        title: str,
    ) -> None:
        """Enter the end of a process in the database."""
        if last is not None and last[0] == "done":
            self._finish(job, last[1])
        elif last is not None:
            self._fail(job, last[1])
        elif process.timed_out:
            hours = self._limits.seconds / 3600
            self._fail(
                job,
                {
                    "code": "time",
                    "message": f"reading {title} took more than the {hours:.2g} hours that are allowed",
                    "hint": "raise --job-hours; the frames read so far are kept, and a new try goes on from there",
                },
            )
        elif job.attempts < _ATTEMPTS:
            self._persistently(lambda connection: _set_if_running(connection, job.id, state="queued"))
        else:
            ended = _ending(process.exit_code)
            self._fail(
                job,
                {
                    "code": "crash",
                    "message": f"the process that read {title} ended {_ATTEMPTS} times without a result ({ended})",
                    "hint": "the file may be damaged, or need more memory than allowed; see --job-memory",
                },
            )

    def _finish(self, job: sa.Row[Any], found: dict[str, Any]) -> None:
        def enter(connection: sa.Connection) -> None:
            if not _set_if_running(
                connection,
                job.id,
                state="done",
                finished_at=utc_now(),
                frames_done=found["frames"],
                frames_total=found["frames"],
                result_id=job.id,
                error=None,
            ):
                return
            folder = f"studies/{job.study_id}/results/{job.id}"
            add_result(connection, id=job.id, study_id=job.study_id, folder=folder, **found["result"])
            known = {name: found[name] for name in ("bytes", "preview") if found[name] is not None}
            change_study(
                connection,
                job.study_id,
                sha256=found["sha256"],
                frames=found["frames"],
                recording=found["recording"],
                error=None,
                **known,
            )

        self._persistently(enter)

    def _fail(self, job: sa.Row[Any], error: dict[str, Any]) -> None:
        one_line = {name: " ".join(str(value).split()) for name, value in error.items()}
        done = self.progress(job.id)

        def enter(connection: sa.Connection) -> None:
            if _set_if_running(
                connection,
                job.id,
                state="failed",
                finished_at=utc_now(),
                error=one_line,
                frames_done=done.frames_done if done else 0,
                frames_total=done.frames_total if done else None,
            ):
                change_study(connection, job.study_id, error=one_line)

        self._persistently(enter)
        _LOG.warning("job failed: %s", error["code"])

    def _is_running(self, job_id: str) -> bool:
        job = self._persistently(lambda connection: find_job(connection, job_id))
        return job is not None and job.state == "running"

    def _persistently(self, work: Callable[[sa.Connection], T]) -> T | None:
        """Run a transaction, again and again while the database or the disk refuses it.

        Returns:
            What ``work`` returned; None if the queue was stopped first. The job then runs again at the next start.
        """
        while True:
            try:
                with self._database.writing() as connection:
                    return work(connection)
            except CapsuleEdgeError as error:
                _LOG.warning("jobs wait: %s", error.code)
                if self._stopping.wait(_RETRY_S):
                    return None


def _existing(connection: sa.Connection, job_id: str) -> sa.Row[Any]:
    job = find_job(connection, job_id)
    if job is None:
        raise NotFoundError("there is no such job", hint="it may have been deleted with its study")
    return job


def _set_if_running(connection: sa.Connection, job_id: str, **values: Any) -> bool:
    """Change a job that runs; False where it was cancelled or deleted meanwhile."""
    job = find_job(connection, job_id)
    if job is None or job.state != "running":
        return False
    change_job(connection, job_id, **values)
    return True


def _ending(exit_code: int | None) -> str:
    if exit_code is None:
        return "no exit code"
    return f"signal {-exit_code}" if exit_code < 0 else f"exit code {exit_code}"
