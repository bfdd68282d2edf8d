"""Hold the parts of a running workstation together: database, jobs, models, events."""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import sqlalchemy as sa
from anyio import CapacityLimiter
from fastapi import Request

from capsule_edge.runtime.errors import CapsuleEdgeError, OutputError
from capsule_edge.runtime.inference import Backend
from capsule_edge.runtime.results import lock_folder

from ..frames import FrameStore, OpenModels
from ..home_folder import make_home
from ..jobs import JobQueue, Limits
from ..models import ModelFolder, engine_of
from ..readings import STORE_CHAIN, ActiveTime, FactsCache, append_line
from ..settings import Settings
from ..store import (
    ConflictError,
    Database,
    NotFoundError,
    StoreError,
    add_job,
    add_study,
    find_job,
    find_study,
    new_id,
    studies,
    study_at,
)
from .allowed_folders import AllowedFolders
from .documents import job_document, study_document
from .event_stream import EventHub
from .frame_work import FrameWork
from .metrics import Metrics
from .model_log import complete_model_log
from .result_files import ResultFiles

__all__ = ["StudyOrder", "Workstation", "workstation"]

_LOG = logging.getLogger("capsule_edge.workstation")
_CHECKS = 2
DEMO_TITLE = "Demo: a rendered recording with known lesions"


@dataclass(frozen=True, kw_only=True)
class StudyOrder:
    """A study to be added.

    Attributes:
        title, path, origin, size, capture_fps, study_id: as in ``add_study``.
        model: SHA-256 or name of the model to read with; None for the one in use.
        landmarks: seconds of container time by name, set by hand.
    """

    title: str
    path: str
    origin: str
    size: int
    model: str | None = None
    capture_fps: float | None = None
    landmarks: dict[str, float] | None = None
    study_id: str | None = None


class Workstation:
    """The parts of one workstation.

    Attributes:
        settings: how it runs.
        database: studies, jobs, results, readings and the log.
        models: the models to read with.
        queue: the jobs.
        hub: the event streams of the open pages.
        folders: the folders whose recordings may be opened by path.
        files: the files of results.
        facts: the facts of results that readings need.
        active_time: bounds the time of reading that pages report.
        frames: the recordings that are being looked at.
        open_models: the models that make activation maps.
        frame_work: the threads that decode and encode pictures.
        checks: bounds the uploads that are checked at once; each takes a process.
        metrics: counters for Prometheus.
    """

    def __init__(self, settings: Settings, database: Database) -> None:
        """Most callers use ``open``."""
        self.settings, self.database = settings, database
        self.limits = Limits(settings.job_memory_bytes, settings.job_seconds)
        self.hub = EventHub()
        self.models = ModelFolder(settings.home / "models")
        self.folders = AllowedFolders(settings.folders)
        self.files = ResultFiles(settings.home)
        self.queue = JobQueue(
            database,
            self.models,
            settings.home,
            limits=self.limits,
            workers=settings.workers,
            folders=tuple(folder.path for folder in self.folders.folders),
            notify=self.tell,
        )
        self.facts = FactsCache(settings.home)
        self.active_time = ActiveTime()
        self.frames = FrameStore()
        self.open_models = OpenModels()
        self.frame_work = FrameWork()
        self.checks = CapacityLimiter(_CHECKS)
        # By study, the mark of the recording that was hashed last and its SHA-256.
        self.hashed: dict[str, tuple[str, str]] = {}
        self._model_paths: dict[str, Path] = {}
        self.metrics = Metrics(self)

    @classmethod
    @contextmanager
    def open(cls, settings: Settings) -> Iterator[Self]:
        """Open the home folder, start the jobs, and stop them when the block ends.

        Raises:
            OutputError: the home folder cannot be written, or another workstation uses it.
            StoreError: the database cannot be opened.
            InputError: an allowed folder is no folder.
        """
        with ExitStack() as stack:
            stack.enter_context(_held(settings.home))
            database = stack.enter_context(Database.open(settings.home / "workstation.sqlite"))
            opened = cls(settings, database)
            opened._sweep()
            complete_model_log(database, opened.models)
            opened.queue.start()
            try:
                yield opened
            finally:
                opened.hub.close()
                opened.queue.stop()
                opened.frames.close()
                opened.open_models.close()

    def study_folder(self, study_id: str) -> Path:
        """Return the folder of a study's upload and results."""
        return self.settings.home / "studies" / study_id

    def recording_path(self, study: Any) -> Path:
        """Return the path of the recording of a study's row."""
        path: Path = self.settings.home / study.path
        return path

    def recording_roots(self, study_id: str) -> tuple[Path, ...]:
        """Return the resolved folders in which the recording of a study may lie: its own and the allowed ones."""
        return (self.study_folder(study_id).resolve(), *(folder.path for folder in self.folders.folders))

    def add(self, order: StudyOrder) -> str:
        """Add a study, queue its job and return its id.

        Raises:
            ConflictError: the recording of a folder is a study already.
            ModelError: there is no such model.
            StoreError: the database cannot be written.
        """
        chosen, added = self._add(order)
        if not added:
            raise ConflictError("this recording is a study already", hint="open it in the list of studies")
        return chosen

    def _add(self, order: StudyOrder) -> tuple[str, bool]:
        """Return the id of the study, and whether it was added now. Raises as ``add``."""
        chosen = self.models.find(order.model) if order.model else self.models.in_use
        options: dict[str, Any] = {}
        if order.capture_fps is not None:
            options["capture_fps"] = order.capture_fps
        if order.landmarks:
            options["landmarks"] = order.landmarks
        with self.database.writing() as connection:
            # Looked up in the transaction that adds: of several requests at once, one adds the study.
            known = _same_study(connection, order.origin, order.path)
            if known is not None:
                return known, False
            added = add_study(
                connection,
                title=order.title,
                path=order.path,
                origin=order.origin,
                size=order.size,
                capture_fps=order.capture_fps,
                study_id=order.study_id,
            )
            add_job(connection, study_id=added, model_sha256=chosen.sha256, options=options)
            append_line(
                connection,
                chain=STORE_CHAIN,
                reader="",
                target=f"study:{added}",
                action="study_added",
                after={"origin": order.origin, "bytes": order.size},
            )
        # First: a job that is taken over at once would be told as running.
        self.tell("study", added, "")
        self.queue.wake()
        return added, True

    def add_demo(self) -> tuple[str, bool]:
        """Return the id of the demo study, and whether it was added now."""
        study_id = new_id()
        path = f"studies/{study_id}/recording.mp4"
        return self._add(StudyOrder(title=DEMO_TITLE, path=path, origin="demo", size=0, study_id=study_id))

    def add_demo_if_empty(self) -> None:
        """Add the demo study where there is no study at all."""
        with self.database.reading() as connection:
            known = connection.execute(studies.select().limit(1)).first()
        if known is None:
            self.add_demo()

    def tell(self, kind: str, study_id: str, job_id: str) -> None:
        """Publish an event for every open page: the document of a study or job, or the partial result of a job."""
        if not self.hub.clients:
            return
        # A page that misses an event fetches anew; the work that caused it goes on.
        with suppress(CapsuleEdgeError), self.database.reading() as connection:
            study = find_study(connection, study_id)
            if study is None:
                return
            if kind == "study":
                self.hub.publish("study", study_document(connection, study, self.queue))
                return
            job = find_job(connection, job_id)
            if job is None:
                return
            document = job_document(job, self.queue)
            if kind == "job":
                self.hub.publish("job", document)
            else:
                self.hub.publish("partial", self._partial(study, document))

    def partial_suggestions(self, job_id: str, model_sha256: str) -> list[dict[str, Any]]:
        """Return the events of a running job that have closed, each as a suggestion without a score.

        They are ordered by their highest probability. Scores, groups and the final order need the whole recording.
        """
        progress = self.queue.progress(job_id)
        events = list(progress.events) if progress else []
        names = self.models.label_names(model_sha256)
        return [
            {
                "id": event["id"],
                "label": event["label"],
                "name": names.get(event["label"], event["label"]),
                "role": event["role"],
                "events": [event],
                "score": None,
                "precision": None,
                "alternatives": [],
                "similar": 0,
            }
            for event in sorted(events, key=lambda event: -event["peak_p"])
        ]

    def _partial(self, study: Any, job: dict[str, Any]) -> dict[str, Any]:
        return {
            "study_id": study.id,
            "suggestions": self.partial_suggestions(job["id"], job["model_sha256"]),
            "frames_done": job["frames_done"],
            "frames_total": job["frames_total"],
            "colours": (study.preview or {}).get("colours"),
        }

    def opened_model(self, sha256: str) -> Backend:
        """Return a model, opened with an engine that reads its format.

        Raises:
            ModelError: there is no such model, or its file is gone.
            BackendError: no installed engine can run it.
        """
        # The file was hashed when it was opened first; hashing it for every map would take longer than the map.
        if sha256 not in self._model_paths:
            self._model_paths[sha256] = self.models.path_of(sha256)
        path = self._model_paths[sha256]
        return self.open_models.open(path, backend=engine_of(path))

    def forget(self, study_id: str) -> None:
        """Remove everything of a deleted study: its folder, and the copies in memory and in the write-ahead log.

        What cannot be removed now is removed at the next start.
        """
        self.frames.discard_study(study_id)
        self.files.forget(f"studies/{study_id}/")
        self.facts.forget(f"studies/{study_id}/")
        self.hashed.pop(study_id, None)
        with suppress(StoreError):
            if not self.database.erase_deleted():
                _LOG.warning("the write-ahead log is in use; deleted data is erased from it later")
        folder = self.study_folder(study_id)
        shutil.rmtree(folder, ignore_errors=True)
        if folder.exists():
            _LOG.warning("the folder of a deleted study could not be removed yet")

    def _sweep(self) -> None:
        """Remove the folders of uploads that were not completed and of studies that were deleted."""
        self.database.erase_deleted()
        shutil.rmtree(self.settings.home / "uploads", ignore_errors=True)
        folder = self.settings.home / "studies"
        with self.database.reading() as connection:
            known = set(connection.execute(studies.select().with_only_columns(studies.c.id)).scalars())
        with suppress(FileNotFoundError):
            for path in folder.iterdir():
                # Only folders that this software named.
                if re.fullmatch("[0-9a-f]{32}", path.name) and path.name not in known:
                    shutil.rmtree(path, ignore_errors=True)


async def workstation(request: Request) -> Workstation:
    """Return the workstation of the app; a dependency of the routes.

    Asynchronous, so that a route that needs no thread of the service waits for none here either.
    """
    opened: Workstation = request.app.state.workstation
    return opened


def existing_study(connection: Any, study_id: str) -> Any:
    """Return the row of a study.

    Raises:
        NotFoundError: there is none.
    """
    row = find_study(connection, study_id)
    if row is None:
        raise NotFoundError("there is no such study", hint="it may have been deleted; reload the list")
    return row


def _same_study(connection: Any, origin: str, path: str) -> str | None:
    """Return the id of the study that a new one would repeat: the one of a folder's recording, or the demo."""
    if origin == "demo":
        query = sa.select(studies.c.id).where(studies.c.origin == "demo").limit(1)
        found: str | None = connection.execute(query).scalar()
        return found
    return study_at(connection, path=path) if origin == "folder" else None


@contextmanager
def _held(home: Path) -> Iterator[None]:
    """Make the home folder and hold its lock."""
    make_home(home)
    with ExitStack() as stack:
        try:
            stack.enter_context(lock_folder(home))
        except OutputError as error:
            raise OutputError(
                f"the home folder {home} is in use by another capsule-edge serve, or cannot be written",
                hint="use the one that runs, or choose another --home",
            ) from error
        yield
