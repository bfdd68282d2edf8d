"""Routes of the service itself: health, session, events, folders, metrics."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel
from starlette.responses import Response, StreamingResponse

from capsule_edge.runtime import __version__
from capsule_edge.runtime.events import LANDMARKS

from ..store import study_at
from .security import AccessToken
from .workstation import Workstation, workstation

__all__ = ["router"]

router = APIRouter(prefix="/v1", tags=["service"])
Station = Annotated[Workstation, Depends(workstation)]

WAYS = {
    "suggestions_first": "Suggestions first",
    "everything": "Everything, with suggestions marked",
    "hidden_first": "Suggestions hidden until a first pass is over",
}


class Health(BaseModel):
    """The state of the service."""

    status: str
    version: str


class Folder(BaseModel):
    """An allowed folder."""

    id: str
    name: str


class Session(BaseModel):
    """The facts that the page needs at its start."""

    expires_at: str
    expires_in_s: float
    tool_version: str
    folders: list[Folder]
    model_sha256: str
    labels: list[dict[str, str]]
    ways: dict[str, str]
    landmarks: list[str]
    upload_bytes: int


class RecordingFile(BaseModel):
    """A recording in an allowed folder, and the study that it was added as."""

    path: str
    bytes: int
    study_id: str | None


class FolderContent(Folder):
    """An allowed folder with its recordings."""

    recordings: list[RecordingFile]


class FolderList(BaseModel):
    """The allowed folders."""

    folders: list[FolderContent]


@router.get("/health")
async def health() -> Health:
    """Return whether the service answers. The only route of ``/v1`` without a token."""
    return Health(status="ok", version=__version__)


@router.get("/session")
def session(request: Request, station: Station) -> Session:
    """Return when the token expires, the allowed folders, and the words of the model in use."""
    left = request.app.state.access.seconds_left
    model = station.models.in_use
    return Session(
        expires_at=(datetime.now(UTC) + timedelta(seconds=left))
        .isoformat(timespec="microseconds")
        .replace("+00:00", "Z"),
        expires_in_s=left,
        tool_version=__version__,
        folders=[Folder(id=each.id, name=each.name) for each in station.folders.folders],
        model_sha256=model.sha256,
        labels=[dict(label) for label in model.labels],
        ways=WAYS,
        landmarks=list(LANDMARKS),
        upload_bytes=station.settings.upload_bytes,
    )


@router.get("/events", response_class=StreamingResponse)
async def events(request: Request, station: Station) -> StreamingResponse:
    """Stream events: ``study``, ``job``, ``partial``, ``reading``, ``models``, and ``ping`` every 15 s.

    The stream ends when the token expires.
    """
    access: AccessToken = request.app.state.access
    stream = station.hub.stream(lambda: access.seconds_left)
    return StreamingResponse(stream, media_type="text/event-stream")


@router.get("/folders")
def folders(station: Station) -> FolderList:
    """Return the recordings in the allowed folders."""
    listed = []
    for folder in station.folders.folders:
        found = station.folders.list(folder)
        with station.database.reading() as connection:
            recordings = [
                RecordingFile(
                    path=each.path, bytes=each.size, study_id=study_at(connection, path=str(each.target))
                )
                for each in found
            ]
        listed.append(FolderContent(id=folder.id, name=folder.name, recordings=recordings))
    return FolderList(folders=listed)


@router.get("/metrics", response_class=Response)
def metrics(station: Station) -> Response:
    """Return the metrics in the text format of Prometheus."""
    return Response(station.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")
