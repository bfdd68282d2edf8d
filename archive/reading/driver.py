"""The driver: hands out tasks, takes results, and records what became of each recording.

It holds the lease, and only it writes the manifest. A result is written whole by a worker, then recorded here. So
after the death of a worker its task is done again, and after that of the driver the command is run again: recordings
that have a result under their key are recorded without reading.
"""

from __future__ import annotations

import heapq
import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from capsule_edge.runtime.errors import CapsuleEdgeError, OutputError
from capsule_edge.runtime.pipeline import tool_versions
from capsule_edge.runtime.results import prepare_folder

from ..engines import TaskEngine
from ..manifest import READ_STATES, Lease, Manifest, Row, State, hold_lease
from ..sources import Recording, RecordingState, SilentError, StateLookup
from .copies import Copies
from .job import BLAMELESS, Job
from .outcome import ReadingOutcome, ReadingProgress
from .setup import ReadSetup
from .store import ResultStore
from .tasks import Identified, IdentifyTask, JoinTask, OpenTask, Task

__all__ = ["Driver", "DriverOptions", "read_archive"]

# Rows are recorded together: at most so many, and at most so many seconds late.
_ROWS = 256
_RECORD_S = 1.0
_WAIT_S = 1.0
# Seconds, for each try before, until something is tried again that is not the recording's fault.
_PAUSE_S = 1.0
# Seconds that the driver waits for the size of a recording.
_PATIENCE_S = 30.0


@dataclass(frozen=True)
class DriverOptions:
    """The options of the driver.

    Attributes:
        tries: how often a task of a recording may fail before the recording is set aside.
        retry_set_aside: try recordings again that an earlier run has set aside.
    """

    tries: int = 3
    retry_set_aside: bool = False


@dataclass(frozen=True)
class _Waiting:
    job: Job
    task: Task


class Driver:
    """Read recordings with an engine and record them.

    Args:
        setup: how the archive is read.
        engine: runs the tasks.
        manifest: begun; the rows go there.
        lease: held.
        options: of the driver.
        progress: told after each result.
    """

    def __init__(
        self,
        setup: ReadSetup,
        engine: TaskEngine,
        manifest: Manifest,
        lease: Lease,
        *,
        options: DriverOptions | None = None,
        progress: ReadingProgress | None = None,
    ) -> None:
        self._setup, self._engine, self._manifest, self._lease = setup, engine, manifest, lease
        self._options, self._progress = options or DriverOptions(), progress
        self._identity, self._version = setup.identity, str(tool_versions()["version"])
        self._queue: list[tuple[int, int, _Waiting]] = []
        # Tasks that failed and are tried again at a time of the monotonic clock, seconds.
        self._delayed: list[tuple[float, int, _Waiting]] = []
        self._copies = Copies()
        # The first recording of each key: others with the key are copies of it.
        self._first: dict[str, str] = {}
        self._running: dict[int, _Waiting] = {}
        self._numbers = iter(range(1 << 62))
        self._pending: list[Row] = []
        self._states, self._store = StateLookup(_PATIENCE_S), ResultStore(setup.out)
        # The rows of earlier runs with a result, of recordings that this run reads.
        self._earlier: dict[str, Row] = {}
        self._recorded = time.monotonic()
        self.outcome = ReadingOutcome()

    def read(self, recordings: Iterable[Recording]) -> ReadingOutcome:
        """Read the recordings that are new, changed or failed, and return what became of all.

        Raises:
            OutputError: the manifest cannot be written, or another driver has taken over.
        """
        due = self._leave_out_known(list(recordings))
        jobs = iter(due)
        exhausted = False
        with self._recording():
            while True:
                self._put_delayed()
                while not exhausted and len(self._queue) + len(self._running) < 2 * self._engine.slots:
                    job = next(jobs, None)
                    exhausted = job is None
                    if job is not None:
                        self._put(job, job.begin())
                self._hand_out()
                if not self._running and not self._queue and exhausted:
                    if not self._delayed:
                        break
                    threading.Event().wait(max(0.0, self._delayed[0][0] - time.monotonic()))
                for number, result in self._engine.wait(_WAIT_S):
                    self._take(self._running.pop(number), result)
                self._tell()
        self.outcome.refusals = self._engine.refusals
        self._tell()
        return self.outcome

    def _leave_out_known(self, recordings: Sequence[Recording]) -> list[Job]:
        """Record wrong rows of lists, count what an earlier run has read, and return the others, the largest first."""
        self.outcome.passed_over = [
            f"{each.location}: {each.fault}" for each in recordings if _is_passed_over(each)
        ]
        known = {row.recording: row for row in self._manifest.rows()}
        self._end_rows(known, recordings)
        recordings = [each for each in recordings if not _is_passed_over(each)]
        self.outcome.listed = len(recordings)
        sized: dict[int | None, list[Job]] = {}
        for recording in recordings:
            self._lease.renew()
            job = self._begin(recording, known.get(recording.location))
            if job is not None:
                sized.setdefault(job.state.bytes if job.state is not None else None, []).append(job)
        due = {job.recording.location for jobs in sized.values() for job in jobs}
        for row in known.values():
            if row.key is not None and row.recording not in due:
                self._first.setdefault(row.key, row.recording)
        for jobs in sized.values():
            if len(jobs) > 1:
                self._copies.add(jobs)
        return [job for size in sorted(sized, key=lambda size: -(size or 0)) for job in sized[size]]

    def _begin(self, recording: Recording, row: Row | None) -> Job | None:
        """Return the job of a recording; None if it is recorded at once, or read by an earlier run.

        Args:
            recording: the recording.
            row: that of an earlier run.
        """
        if row is not None and row.state in READ_STATES:
            self._earlier[recording.location] = row
        if recording.fault:
            outcome: State = "set_aside" if recording.cause == "list" else "failed"
            self._record(recording, outcome, cause=recording.cause, message=recording.fault)
            return None
        state, silence = self._look(recording)
        if row is not None and self._is_current(row, state):
            self._earlier.pop(recording.location, None)
            self._keep(row, recording)
            return None
        job = Job(recording, tries=self._options.tries, divide=self._engine.slots > 1, looked=state)
        if silence is not None:
            job.give_up(silence.code, str(silence))
            self._finish(job)
            return None
        return job

    def _end_rows(self, known: Mapping[str, Row], recordings: Sequence[Recording]) -> None:
        """End the rows of what was never read and is no longer named by its source: a list that was corrected.

        A source of which a part cannot be listed now may still name it.
        """
        listed = {recording.location for recording in recordings if not _is_passed_over(recording)}
        partly = {
            source
            for recording in recordings
            for source in (recording.source, *recording.sources)
            if recording.fault and recording.cause == "source"
        }
        named = {source for recording in recordings for source in (recording.source, *recording.sources)}
        whole = named - partly - {""}
        for row in known.values():
            if row.state not in READ_STATES and row.listed_in in whole and row.recording not in listed:
                self._pending.append(replace(row, state="gone", recorded_at=_now()))

    def _look(self, recording: Recording) -> tuple[RecordingState | None, SilentError | None]:
        """Return the state of a recording, and the error if its share does not answer.

        Where there is neither, a worker says why when it opens the recording.
        """
        try:
            return self._states.look(recording.opened), None
        except SilentError as error:
            return None, error
        except CapsuleEdgeError:
            return None, None

    def _is_current(self, row: Row, state: RecordingState | None) -> bool:
        same = (
            state is not None
            and (row.bytes, row.modified_ns) == (state.bytes, state.modified_ns)
            and row.identity == self._identity
        )
        if row.state in READ_STATES:
            return same and row.key is not None and self._store.has(row.key)
        return row.state == "set_aside" and same and not self._options.retry_set_aside

    def _keep(self, row: Row, recording: Recording) -> None:
        """Count a recording of an earlier run; record it again where the list says something else of it now."""
        facts = {name: getattr(recording, name) for name in ("site", "capsule_type", "patient", "date")}
        if any(getattr(row, name) != value for name, value in facts.items()):
            row = replace(row, **facts, recorded_at=_now())
            self._pending.append(row)
        self.outcome.count(row, earlier=True)

    def _put(self, job: Job, tasks: Iterable[Task], *, later: bool = False) -> None:
        for task in tasks:
            # What is begun is finished first, so that little waits on the disk. A task that failed goes to the end.
            begins = isinstance(task, IdentifyTask | OpenTask)
            urgency = 3 if later else 2 if begins else 0 if isinstance(task, JoinTask) else 1
            heapq.heappush(self._queue, (urgency, next(self._numbers), _Waiting(job, task)))

    def _hand_out(self) -> None:
        while self._queue and len(self._running) < self._engine.slots:
            waiting = heapq.heappop(self._queue)[2]
            if waiting.job.is_due(waiting.task) and not self._is_silent(waiting.job):
                number = next(self._numbers)
                self._engine.submit(number, waiting.task)
                self._running[number] = waiting

    def _is_silent(self, job: Job, *, ask: bool = False) -> bool:
        """Give a job up if the place of its recording does not answer, and return whether it was.

        Args:
            job: the job.
            ask: look at the recording. Without it, only places are known that did not answer before.
        """
        try:
            if ask:
                self._states.look(job.recording.opened)
            else:
                self._states.check(job.recording.opened)
        except SilentError as error:
            job.give_up(error.code, str(error))
            self._end(job)
            return True
        except CapsuleEdgeError:
            pass
        return False

    def _take(self, waiting: _Waiting, result: object) -> None:
        job = waiting.job
        if job.over:
            return
        failures = job.failures
        due = job.take(waiting.task, result)
        if isinstance(result, Identified):
            self._begin_jobs(self._copies.identify(job, result.key))
            return
        # A share that hangs lets each task run until its limit, and says nothing of the recordings.
        if job.failures > failures and job.last_cause == "time" and self._is_silent(job, ask=True):
            return
        if job.failures > failures:
            at = time.monotonic() + job.failures * (_PAUSE_S if job.last_cause in BLAMELESS else 0.0)
            for task in due:
                heapq.heappush(self._delayed, (at, next(self._numbers), _Waiting(job, task)))
        else:
            self._put(job, due)
        if job.over:
            self._end(job)

    def _end(self, job: Job) -> None:
        """Record a job that is over, and begin those that waited for it."""
        self._finish(job)
        self._begin_jobs(self._copies.end(job))

    def _begin_jobs(self, jobs: Iterable[Job]) -> None:
        for job in jobs:
            self._put(job, job.begin())

    def _put_delayed(self) -> None:
        while self._delayed and self._delayed[0][0] <= time.monotonic():
            waiting = heapq.heappop(self._delayed)[2]
            self._put(waiting.job, [waiting.task], later=True)

    def _finish(self, job: Job) -> None:
        recording, done, failed = job.recording, job.done, job.failed
        if done is None:
            assert failed is not None
            state: State = "failed" if failed.cause in BLAMELESS else "set_aside"
            self._record(
                recording, state, cause=failed.cause, message=failed.message, tries=job.failures,
                **_state_fields(job.state),
            )  # fmt: skip
            return
        ledger = done.ledger
        lost = ledger["corrupt"] or ledger["missing"] or ledger["unread"]
        cause = (
            "truncated"
            if ledger["truncated"]
            else "damaged"
            if ledger["corrupt"]
            else "missing"
            if lost
            else ""
        )
        self._record(
            recording,
            "incomplete" if cause else "read",
            cause=cause,
            message=_describe_loss(ledger) if cause else "",
            tries=job.failures,
            **_state_fields(done.state),
            sha256=done.sha256,
            key=done.key,
            frames=ledger["container"],
            **{name: ledger[name] for name in ("classified", "duplicate", "corrupt", "missing", "truncated")},
            suggestions=done.suggestions,
            seconds=round(done.seconds, 3),
        )

    def _outlives(self, earlier: Row | None, row: Row) -> bool:
        """Return whether the result of an earlier run still is the newest of a recording that was not read now.

        So it is unless the recording is known to have changed, or is itself to blame in its present state.
        """
        if (
            earlier is None
            or row.state in READ_STATES
            or earlier.key is None
            or not self._store.has(earlier.key)
        ):
            return False
        unknown = row.bytes is None and row.modified_ns is None
        same = (row.bytes, row.modified_ns) == (earlier.bytes, earlier.modified_ns)
        return unknown or (same and row.state == "failed")

    def _record(self, recording: Recording, state: State, **values: Any) -> None:
        """Count a recording and record it; one whose earlier result stays is counted alone."""
        row = Row(
            recording=recording.location,
            site=recording.site,
            capsule_type=recording.capsule_type,
            patient=recording.patient,
            date=recording.date,
            state=state,
            model_sha256=self._setup.model_sha256,
            identity=self._identity,
            version=self._version,
            options=json.dumps(self._setup.options, sort_keys=True),
            recorded_at=_now(),
            listed_in=recording.source or None,
            **values,
        )
        self.outcome.count(row, earlier=False)
        if row.key is not None and (first := self._first.setdefault(row.key, row.recording)) != row.recording:
            self.outcome.copies.append((row.recording, first))
        if not self._outlives(self._earlier.get(recording.location), row):
            self._pending.append(row)

    @contextmanager
    def _recording(self) -> Iterator[None]:
        """Record what is pending at the end of the block, also when it is interrupted.

        A driver that has lost the lease records nothing: its rows would take the next number of the rightful one and
        stop it. The results are there all the same, and the rightful driver finds them by their keys.
        """
        try:
            yield
        except BaseException:
            with suppress(OutputError):
                self._write()
            raise
        self._write()

    def _tell(self) -> None:
        self._lease.renew()
        if len(self._pending) >= _ROWS or time.monotonic() - self._recorded > _RECORD_S:
            self._write()
        if self._progress is not None:
            self._progress.update(
                self.outcome,
                running=len(self._running),
                waiting=self.outcome.listed - self.outcome.done,
                workers=self._engine.slots,
            )

    def _write(self) -> None:
        for first in range(0, len(self._pending), _ROWS):
            self._lease.check()
            self._manifest.append(self._pending[first : first + _ROWS])
        self._pending, self._recorded = [], time.monotonic()


def read_archive(
    setup: ReadSetup,
    recordings: Callable[[], Sequence[Recording]],
    open_engine: Callable[[], TaskEngine],
    *,
    options: DriverOptions | None = None,
    progress: ReadingProgress | None = None,
    after: Callable[[Lease], None] | None = None,
) -> ReadingOutcome:
    """Read an archive: hold its lease, read what is due, and merge the manifest.

    Args:
        setup: how it is read; its folder is made.
        recordings: lists them; called when the lease is held.
        open_engine: called when the recordings are listed; the engine is closed at the end.
        options: of the driver.
        progress: told after each result.
        after: called at the end, while the lease is still held.

    Raises:
        OutputError: another driver writes to the folder, or it cannot be written.
        InputError: a source cannot be listed.
    """
    out = Path(setup.out)
    prepare_folder(out, overwrite=True)
    with hold_lease(out) as lease:
        manifest = Manifest(out)
        manifest.begin()
        ResultStore(out).clear_work()
        listed = recordings()
        engine = open_engine()
        try:
            driver = Driver(setup, engine, manifest, lease, options=options, progress=progress)
            outcome = driver.read(listed)
            ResultStore(out).clear_work(whole=True)
        finally:
            engine.close()
        lease.check()
        manifest.compact()
        if after is not None:
            after(lease)
        return outcome


def _is_passed_over(recording: Recording) -> bool:
    return bool(recording.fault) and recording.cause == "passed_over"


def _state_fields(state: RecordingState | None) -> dict[str, int | None]:
    if state is None:
        return {"bytes": None, "modified_ns": None}
    return {"bytes": state.bytes, "modified_ns": state.modified_ns}


def _describe_loss(ledger: dict[str, Any]) -> str:
    parts = [f"{ledger[name]:,} {name}" for name in ("corrupt", "missing", "unread") if ledger[name]]
    cut = ["the file is cut"] if ledger["truncated"] else []
    return f"of {ledger['container']:,} frames: {', '.join(parts + cut)}"


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
