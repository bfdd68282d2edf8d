"""Routes of studies: list, add by path, by upload or as the demo, delete, and the files of their results."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse, Response

from capsule_edge.runtime.errors import CapsuleEdgeError
from capsule_edge.runtime.events import LANDMARKS
from capsule_edge.runtime.inference import SEEN_IN_FITTING, SEEN_IN_TRAINING
from capsule_edge.runtime.report import describe_model

from ..jobs import ReadingProcess, check_recording
from ..readings import STORE_CHAIN, append_line, head_hash
from ..store import current_result, delete_study, find_study, last_job, list_studies, new_id
from .documents import Limits, Line, Study, StudyList, study_document
from .problems import RequestError
from .report_parts import read_spec
from .timeline import preview_timeline, summarise_frames
from .uploads import CHECK_S, describe_upload, received_body, split_name
from .workstation import StudyOrder, Workstation, existing_study, workstation

__all__ = ["router"]

router = APIRouter(prefix="/v1/studies", tags=["studies"])
Station = Annotated[Workstation, Depends(workstation)]

CaptureFps = Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)]
Seconds = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]


class NewStudy(BaseModel):
    """A recording in an allowed folder, to be added as a study."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"folder": "1f0e3dad9990", "path": "2026/exam.mp4", "capture_fps": 2.0}]
        },
    )

    folder: Line
    path: Line
    title: Line | None = None
    capture_fps: CaptureFps | None = None
    landmarks: dict[str, Seconds] | None = Field(None, max_length=len(LANDMARKS))
    model: Annotated[str, Field(max_length=64)] | None = None


@router.get("")
def get_studies(
    station: Station,
    search: Annotated[Line, Query(description="words in the title or the examination")] = "",
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
    offset: Annotated[int, Query(ge=0, le=10**9)] = 0,
) -> StudyList:
    """Return studies, the newest first."""
    with station.database.reading() as connection:
        rows, total = list_studies(connection, search=search, limit=limit, offset=offset)
        documents = [study_document(connection, row, station.queue) for row in rows]
    return StudyList.model_validate({"studies": documents, "total": total})


@router.post("", status_code=201)
def post_study(station: Station, new: NewStudy) -> Study:
    """Add a recording of an allowed folder as a study, and queue its reading. The file is never changed."""
    _check_landmarks(new.landmarks)
    found = station.folders.resolve(new.folder, new.path)
    order = StudyOrder(
        title=new.title or found.target.name,
        path=str(found.target),
        origin="folder",
        size=found.size,
        model=new.model,
        capture_fps=new.capture_fps,
        landmarks=dict(new.landmarks or {}),
    )
    return _study(station, station.add(order))


def _check_landmarks(landmarks: dict[str, float] | None) -> None:
    for name in landmarks or {}:
        if name not in LANDMARKS:
            raise RequestError(
                422,
                "invalid",
                f"the landmark {name[:40]!r} is not known, allowed is one of {', '.join(LANDMARKS)}",
            )


@router.post("/demo", status_code=201, responses={200: {"model": Study}})
def post_demo(station: Station) -> Response:
    """Add the demo, a rendered recording with known lesions. Where it is there already, it is returned."""
    study_id, added = station.add_demo()
    return JSONResponse(_study(station, study_id).model_dump(), 201 if added else 200)


@router.post(
    "/upload",
    status_code=201,
    openapi_extra=describe_upload("A recording.", "exam.mp4"),
)
async def post_upload(
    request: Request,
    station: Station,
    name: Annotated[
        Line, Query(min_length=1, description="name of the file; becomes the title", examples=["exam.mp4"])
    ],
    title: Annotated[Line | None, Query()] = None,
    capture_fps: Annotated[CaptureFps | None, Query()] = None,
    model: Annotated[str | None, Query(max_length=64)] = None,
) -> Study:
    """Upload a recording as the body of the request, check that it is one, and queue its reading."""
    study_id = new_id()
    given, suffix = split_name(name)
    path = station.study_folder(study_id) / f"recording{suffix}"
    if model is not None:
        await to_thread.run_sync(station.models.find, model)
    async with received_body(request, path, limit=station.settings.upload_bytes) as size:
        await to_thread.run_sync(_check_upload, station, path, title or given, limiter=station.checks)

    order = StudyOrder(
        title=title or given,
        path=path.relative_to(station.settings.home).as_posix(),
        origin="upload",
        size=size,
        model=model,
        capture_fps=capture_fps,
        study_id=study_id,
    )

    def add() -> Study:
        with _kept_if_added(station, study_id):
            station.add(order)
        return _study(station, study_id)

    return await to_thread.run_sync(add)


@contextmanager
def _kept_if_added(station: Workstation, study_id: str) -> Iterator[None]:
    """Remove an upload if the block fails and the study is surely not in the database."""
    try:
        yield
    except BaseException:
        # Where the database cannot say it, the upload stays, and the next start removes it if it has no study.
        with suppress(CapsuleEdgeError):
            with station.database.reading() as connection:
                known = find_study(connection, study_id)
            if known is None:
                station.forget(study_id)
        raise


def _check_upload(station: Workstation, path: Any, title: str) -> None:
    """Raise ``RequestError`` for a file that is no recording. A process of its own opens it, as it may be harmful."""
    from dataclasses import replace

    shown = title if len(title) <= 80 else f"{title[:79]}\u2026"
    limits = replace(station.limits, seconds=min(CHECK_S, station.limits.seconds))
    process = ReadingProcess(check_recording, (path, shown), limits)
    for kind, content in process.messages():
        if kind == "done":
            return
        raise RequestError(415, content["code"], content["message"], hint=content["hint"])
    raise RequestError(
        415,
        "input",
        f"{shown} cannot be read as a recording",
        hint="convert it to MP4 (H.264) and upload that",
    )


@router.get("/{study_id}")
def get_study(station: Station, study_id: str) -> Study:
    """Return a study."""
    return _study(station, study_id)


@router.delete("/{study_id}", status_code=204, response_class=Response)
def delete(station: Station, study_id: str) -> Response:
    """Delete a study with its upload, results, readings and log. A recording in an allowed folder stays."""
    with station.database.reading() as connection:
        existing_study(connection, study_id)
    with station.queue.deleting(study_id):
        with station.database.writing() as connection:
            row = existing_study(connection, study_id)
            head = head_hash(connection, study_id)
            delete_study(connection, study_id)
            append_line(
                connection,
                chain=STORE_CHAIN,
                reader="",
                target=f"study:{study_id}",
                action="study_deleted",
                before={"head": head},
                study_sha256=row.sha256 or "",
            )
        station.forget(study_id)
    station.hub.publish("study", {"id": study_id, "state": "deleted"})
    return Response(status_code=204)


@router.get("/{study_id}/preview")
def get_preview(station: Station, study_id: str) -> dict[str, Any]:
    """Return the length and the colours of the recording, null as far as they are not known yet."""
    with station.database.reading() as connection:
        preview = existing_study(connection, study_id).preview or {}
    return {name: preview.get(name) for name in ("frames", "duration_s", "colours")}


@router.get("/{study_id}/document")
def get_document(station: Station, study_id: str, result: str | None = None) -> Response:
    """Return ``study.json`` of the current result, or of the one that is named."""
    row = _result(station, study_id, result)
    return Response(station.files.content(row.folder, "study.json"), media_type="application/json")


@router.get("/{study_id}/timeline")
def get_timeline(
    station: Station,
    study_id: str,
    bins: Annotated[int, Query(ge=1, le=20_000)] = 1000,
    result: str | None = None,
) -> dict[str, Any]:
    """Return the frames of a study in bins that are equal in frame index. Before a result is there, only colours."""
    with station.database.reading() as connection:
        study = existing_study(connection, study_id)
        row = current_result(connection, study_id, result)
    if row is None:
        if result is not None:
            raise RequestError(404, "not_found", "the study has no such result")
        return preview_timeline(study.preview, bins=bins)
    facts = study.recording or {}
    return summarise_frames(
        station.files.columns(row.folder),
        bins=bins,
        duration_s=facts.get("duration_s"),
        colours=(study.preview or {}).get("colours"),
    )


@router.get("/{study_id}/suggestions")
def get_suggestions(station: Station, study_id: str, result: str | None = None) -> dict[str, Any]:
    """Return the suggestions, the best first; while the first result is read, the events that have closed so far."""
    with station.database.reading() as connection:
        existing_study(connection, study_id)
        row = current_result(connection, study_id, result)
        job = last_job(connection, study_id)
    if row is None:
        if result is not None:
            raise RequestError(404, "not_found", "the study has no such result")
        known = [] if job is None else station.partial_suggestions(job.id, job.model_sha256)
        return {"partial": True, "result_id": None, "suggestions": known}
    document = station.files.document(row.folder)
    names = station.models.label_names(row.model_sha256)
    events = {event["id"]: event for event in document["events"]}
    suggestions = [
        {
            **each,
            "name": names.get(each["label"], each["label"]),
            "role": events[each["events"][0]]["role"],
            "events": [events[number] for number in each["events"]],
        }
        for each in document["suggestions"] or ()
    ]
    return {"partial": False, "result_id": row.id, "suggestions": suggestions}


@router.get("/{study_id}/limits")
def get_limits(station: Station, study_id: str, result: str | None = None) -> Limits:
    """Return what keeps the suggestions of a result from being relied on: the words are those of the report."""
    row = _result(station, study_id, result)
    warnings = station.files.document(row.folder)["warnings"]
    spec = read_spec(station, row.model_sha256)
    spots = None
    if spec is not None:
        spots = [f"{spot.strong} {spot.text}".strip() for spot in describe_model(spec, "").blind_spots]
    known = [each["message"] for each in warnings if each["code"] in (SEEN_IN_TRAINING, SEEN_IN_FITTING)]
    return Limits(result_id=row.id, not_new=known, blind_spots=spots)


@router.get("/{study_id}/frames")
def get_frames(
    station: Station,
    study_id: str,
    start: Annotated[int, Query(ge=0, le=10**9)] = 0,
    count: Annotated[int, Query(ge=1, le=2000)] = 200,
    result: str | None = None,
) -> dict[str, Any]:
    """Return rows of ``frames.csv``: status, label and probability of each frame."""
    row = _result(station, study_id, result)
    columns = station.files.columns(row.folder)
    return {"total": len(columns), "rows": columns.rows(start, count)}


def _study(station: Workstation, study_id: str) -> Study:
    with station.database.reading() as connection:
        row = existing_study(connection, study_id)
        return Study.model_validate(study_document(connection, row, station.queue))


def _result(station: Workstation, study_id: str, result: str | None) -> Any:
    """Return the row of the current result of a study, or of the one that is named."""
    with station.database.reading() as connection:
        existing_study(connection, study_id)
        row = current_result(connection, study_id, result)
    if row is None:
        raise RequestError(
            404, "not_found", "the study has no such result", hint="wait until it is read, or read it again"
        )
    return row
