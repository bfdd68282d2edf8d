"""Routes of exports: the files of a result, the log as JSON lines, a reading as JSON, its report as HTML and PDF."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import sqlalchemy as sa
from fastapi import APIRouter, Depends
from starlette.responses import HTMLResponse, JSONResponse, Response

from ..readings import (
    LogFaultError,
    export_log,
    export_reading,
    head_hash,
    list_readings,
    verify_database,
)
from ..report import render_reading, write_pdf
from ..store import current_result, studies
from .documents import Fault
from .export_manifest import write_manifest
from .frame_work import FrameThread
from .problems import RequestError
from .reading_documents import Export, ExportList, LogState
from .report_parts import find_pictures, read_spec
from .routes_readings import reading_facts
from .workstation import Workstation, existing_study, workstation

__all__ = ["router"]

router = APIRouter(prefix="/v1", tags=["exports"])
Station = Annotated[Workstation, Depends(workstation)]
FileName = Literal["frames.csv", "study.json", "report.html", "log.jsonl", "manifest.json"]
_MEDIA: dict[str, str] = {
    "frames.csv": "text/csv",
    "study.json": "application/json",
    "report.html": "text/html",
    "log.jsonl": "application/jsonl",
    "manifest.json": "application/json",
}
_WITHOUT_RESULT = ("log.jsonl", "manifest.json")
_RESULT_FILES = tuple(name for name in _MEDIA if name not in _WITHOUT_RESULT)
_READING_MEDIA = {
    "reading.json": "application/json",
    "report": "text/html",
    "report.pdf": "application/pdf",
}


@router.get("/studies/{study_id}/exports")
def get_exports(station: Station, study_id: str) -> ExportList:
    """Return the files that can be exported now: of the current result, of the log and of each reading."""
    with station.database.reading() as connection:
        existing_study(connection, study_id)
        result = current_result(connection, study_id)
        readings = list_readings(connection, study_id)
        head = head_hash(connection, study_id)
    names = [name for name in _MEDIA if result is not None or name in _WITHOUT_RESULT]
    exports = [
        Export(name=name, path=f"studies/{study_id}/exports/{name}", media_type=_MEDIA[name])
        for name in names
    ]
    for reading in readings:
        exports += [
            Export(
                name=name,
                path=f"readings/{reading['id']}/{name}",
                media_type=media,
                reading_id=reading["id"],
                reader=reading["reader"],
            )
            for name, media in _READING_MEDIA.items()
        ]
    return ExportList(exports=exports, head_hash=head)


@router.get("/studies/{study_id}/exports/{name}", response_class=Response)
def get_export(station: Station, study_id: str, name: FileName, result: str | None = None) -> Response:
    """Return a file of the current result (or of the one that is named), the log as JSON lines, or the manifest."""
    with station.database.reading() as connection:
        study = existing_study(connection, study_id)
        row = current_result(connection, study_id, result)
        head = head_hash(connection, study_id)
        lines = list(export_log(connection, study_id)) if name in _WITHOUT_RESULT else []
    if row is None and (result is not None or name not in _WITHOUT_RESULT):
        raise RequestError(404, "not_found", "the study has no such result", hint="wait until it is read")
    if row is not None and name in _RESULT_FILES:
        return _file(station.files.content(row.folder, name), name, _MEDIA[name], head)
    log = "".join(lines).encode()
    if name == "log.jsonl":
        return _file(log, name, _MEDIA[name], head)
    files = {} if row is None else {each: station.files.content(row.folder, each) for each in _RESULT_FILES}
    files["log.jsonl"] = log
    content = write_manifest(files, study=study, result=row, head=head, lines=len(lines))
    return _file(content, name, _MEDIA[name], head)


@router.get("/studies/{study_id}/log/verify")
def get_log_state(station: Station, study_id: str) -> LogState:
    """Check that the log of a study is whole, and that readings and examination are what it says."""
    with station.database.reading() as connection:
        # The row itself may be damaged, and is then a fault to report.
        if connection.execute(sa.select(studies.c.id).where(studies.c.id == study_id)).first() is None:
            raise RequestError(404, "not_found", "there is no such study", hint="it may have been deleted")
        try:
            (found,) = verify_database(connection, study_id)
        except LogFaultError as error:
            fault = {"code": error.code, "message": error.message, "hint": error.hint}
            return LogState(valid=False, head="", lines=0, fault=Fault.model_validate(fault))
    return LogState(valid=True, head=found.head, lines=found.lines)


@router.get("/readings/{reading_id}/reading.json", response_class=Response)
def get_reading_export(station: Station, reading_id: str) -> Response:
    """Return a reading as one document of the schema ``capsule-edge/reading/1``."""
    return JSONResponse(reading_export(station, reading_id))


def reading_export(station: Workstation, reading_id: str) -> dict[str, Any]:
    """Return a reading as one document.

    Raises:
        ReadingNotFoundError: there is no such reading.
    """
    facts, _ = reading_facts(station, reading_id)
    names = station.models.label_names(facts.document["model"]["sha256"])
    with station.database.reading() as connection:
        return export_reading(connection, facts, reading_id, names=names)


@router.get("/readings/{reading_id}/report", response_class=HTMLResponse)
async def get_report(run: FrameThread, station: Station, reading_id: str) -> HTMLResponse:
    """Return the report of a reading as an HTML page that loads nothing and has no scripts."""
    return HTMLResponse(await run(reading_id, _report, station, reading_id))


@router.get(
    "/readings/{reading_id}/report.pdf",
    response_class=Response,
    responses={200: {"content": {"application/pdf": {}}}},
)
async def get_report_pdf(run: FrameThread, station: Station, reading_id: str) -> Response:
    """Return the report of a reading as PDF. 501 where Pango is not installed; all else works without it."""
    headers = {"Content-Disposition": 'attachment; filename="report.pdf"'}
    content = await run(reading_id, lambda: write_pdf(_report(station, reading_id)))
    return Response(content, headers=headers, media_type="application/pdf")


def _report(station: Workstation, reading_id: str) -> str:
    document = reading_export(station, reading_id)
    model = read_spec(station, document["model"]["sha256"])
    picture = find_pictures(station, document["reading"]["study_id"])
    return render_reading(document, picture=picture, model=model)


def _file(content: bytes, name: str, media_type: str, head: str) -> Response:
    # The files of a result are older than the log; the header says where the log stood when they were exported.
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "X-Log-Head": head}
    return Response(content, headers=headers, media_type=media_type)
