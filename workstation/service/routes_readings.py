"""Routes of readings: open, decide, add findings, undo, landmarks, frames seen, finish; and the examination."""

from __future__ import annotations

from typing import Annotated, Any

import sqlalchemy as sa
from fastapi import APIRouter, Body, Depends

from ..readings import (
    ReadingNotFoundError,
    ReadingValueError,
    ResultFacts,
    add_finding,
    add_seen,
    change_examination,
    decide,
    finish,
    open_reading,
    progress_document,
    reading_document,
    remove_landmark,
    reopen,
    second_pass,
    set_landmark,
    switch_way,
    undo,
)
from ..store import list_results, readings, results
from .documents import Line
from .reading_documents import (
    Act,
    Decision,
    DecisionChange,
    Examination,
    ExaminationChange,
    LandmarkChange,
    NewFinding,
    NewReading,
    Progress,
    Reading,
    ReadingChange,
    SeenFrames,
    UndoChange,
    Undone,
    Version,
)
from .workstation import Workstation, existing_study, workstation

__all__ = ["reading_facts", "router"]

router = APIRouter(prefix="/v1", tags=["readings"])
Station = Annotated[Workstation, Depends(workstation)]
OptionalAct = Annotated[Act | None, Body(examples=[{"reader": "Dr. Ada Reader"}, {}])]


def reading_facts(station: Workstation, reading_id: str) -> tuple[ResultFacts, str]:
    """Return the facts of the result that a reading is about, and the id of its study.

    Raises:
        ReadingNotFoundError: there is no such reading.
        ResultDamagedError: the files of the result cannot be read.
    """
    query = (
        sa.select(results.c.folder, readings.c.study_id)
        .join(readings, readings.c.result_id == results.c.id)
        .where(readings.c.id == reading_id)
    )
    with station.database.reading() as connection:
        row = connection.execute(query).first()
    if row is None:
        raise ReadingNotFoundError("there is no such reading", hint="its study may have been deleted")
    return station.facts.get(row.folder), row.study_id


@router.post("/studies/{study_id}/readings", status_code=201)
def post_reading(station: Station, study_id: str, new: NewReading) -> Reading:
    """Open a reading of a study by a reader, whose name is typed in."""
    with station.database.reading() as connection:
        existing_study(connection, study_id)
        found = [row for row in list_results(connection, study_id) if new.result in (None, row.id)]
    # A reading whose result cannot be read must not be left behind. Without a result, none is opened.
    if found:
        station.facts.get(found[-1].folder)
    result_id = found[-1].id if found else new.result
    with station.database.writing() as connection:
        reading_id = open_reading(
            connection, study_id=study_id, reader=new.reader, way=new.way, result_id=result_id
        )
    facts, _ = reading_facts(station, reading_id)
    station.tell("study", study_id, "")
    return _shown(station, facts, reading_id)


@router.get("/readings/{reading_id}")
def get_reading(station: Station, reading_id: str) -> Reading:
    """Return a reading with its decisions, landmarks, coverage and progress."""
    facts, _ = reading_facts(station, reading_id)
    return _shown(station, facts, reading_id)


@router.patch("/readings/{reading_id}")
def patch_reading(station: Station, reading_id: str, change: ReadingChange) -> Reading:
    """Switch the way to read, or begin the second pass, which shows the suggestions. Both are logged."""
    if (change.way is None) == (change.pass_ is None):
        raise ReadingValueError("the change names neither or both of way and pass, allowed is one of them")
    facts, study_id = reading_facts(station, reading_id)
    with station.database.writing() as connection:
        if change.way is not None:
            switch_way(connection, reading_id, way=change.way, reader=change.reader)
        else:
            second_pass(connection, reading_id, reader=change.reader)
    station.tell("study", study_id, "")
    return _changed(station, facts, reading_id)


@router.put("/readings/{reading_id}/decisions/{target}")
def put_decision(station: Station, reading_id: str, target: str, change: DecisionChange) -> Decision:
    """Decide on a suggestion (``suggestion:3``), or change a finding of one's own (``finding:ID``).

    409 with the decision as it is now (``current``) where another window has decided meanwhile.
    """
    facts, _ = reading_facts(station, reading_id)
    with station.database.writing() as connection:
        decision = decide(connection, facts, reading_id, target, **change.model_dump())
        progress = progress_document(connection, facts, reading_id)
    _tell(station, reading_id, progress)
    return Decision.model_validate({**decision, "progress": progress})


@router.post("/readings/{reading_id}/findings", status_code=201)
def post_finding(station: Station, reading_id: str, new: NewFinding) -> Decision:
    """Add a finding of one's own. Sent again with the same ``id``, it is added once."""
    facts, _ = reading_facts(station, reading_id)
    values = new.model_dump()
    with station.database.writing() as connection:
        decision = add_finding(connection, facts, reading_id, finding_id=values.pop("id"), **values)
        progress = progress_document(connection, facts, reading_id)
    _tell(station, reading_id, progress)
    return Decision.model_validate({**decision, "progress": progress})


@router.post("/readings/{reading_id}/undo")
def post_undo(
    station: Station,
    reading_id: str,
    change: Annotated[UndoChange | None, Body(examples=[{"sequence": 17}, {}])] = None,
) -> Undone:
    """Undo the last decision, finding or landmark of the reading that was not undone. The log keeps both."""
    facts, _ = reading_facts(station, reading_id)
    with station.database.writing() as connection:
        asked = change or UndoChange()
        undone = undo(connection, reading_id, sequence=asked.sequence, reader=asked.reader)
    return Undone.model_validate({**undone, "reading": _changed(station, facts, reading_id)})


@router.put("/readings/{reading_id}/landmarks/{name}")
def put_landmark(station: Station, reading_id: str, name: str, change: LandmarkChange) -> Reading:
    """Set or move a landmark: stomach, small-bowel, colon or end. Transit times follow.

    409 with the landmark as it is now (``current``) where another window has changed it meanwhile.
    """
    facts, _ = reading_facts(station, reading_id)
    with station.database.writing() as connection:
        set_landmark(connection, facts, reading_id, name, **change.model_dump())
    return _changed(station, facts, reading_id)


@router.delete("/readings/{reading_id}/landmarks/{name}")
def delete_landmark(
    station: Station, reading_id: str, name: str, reader: Line | None = None, version: Version | None = None
) -> Reading:
    """Remove a landmark. 409 as for setting it, where the version that the reader saw is named."""
    facts, _ = reading_facts(station, reading_id)
    with station.database.writing() as connection:
        remove_landmark(connection, reading_id, name, version=version, reader=reader)
    return _changed(station, facts, reading_id)


@router.post("/readings/{reading_id}/seen")
def post_seen(station: Station, reading_id: str, report: SeenFrames) -> Progress:
    """Report frames that a human has seen (painted in a visible window for 1/15 s) or skimmed, and the active time."""
    facts, _ = reading_facts(station, reading_id)
    passed = station.active_time.passed(reading_id)
    with station.database.writing() as connection:
        added = add_seen(connection, facts, reading_id, **report.model_dump(), at_most_s=passed)
        progress = progress_document(connection, facts, reading_id)
    if added:
        _tell(station, reading_id, progress)
    return Progress.model_validate(progress)


@router.post("/readings/{reading_id}/finish")
def post_finish(station: Station, reading_id: str, act: OptionalAct = None) -> Reading:
    """Finish a reading. Nothing in it changes until it is reopened; it stays preliminary, nobody can sign."""
    facts, study_id = reading_facts(station, reading_id)
    with station.database.writing() as connection:
        finish(connection, reading_id, reader=act.reader if act else None)
    station.tell("study", study_id, "")
    return _changed(station, facts, reading_id)


@router.post("/readings/{reading_id}/reopen")
def post_reopen(station: Station, reading_id: str, act: OptionalAct = None) -> Reading:
    """Open a finished reading again."""
    facts, study_id = reading_facts(station, reading_id)
    with station.database.writing() as connection:
        reopen(connection, reading_id, reader=act.reader if act else None)
    station.tell("study", study_id, "")
    return _changed(station, facts, reading_id)


@router.patch("/studies/{study_id}/examination")
def patch_examination(station: Station, study_id: str, change: ExaminationChange) -> Examination:
    """Change fields of the examination. 409 with the fields as they are now where they were changed meanwhile."""
    fields = change.model_dump(exclude={"reader", "version"}, exclude_none=True)
    with station.database.writing() as connection:
        changed = change_examination(
            connection, study_id, reader=change.reader, version=change.version, fields=fields
        )
    station.tell("study", study_id, "")
    return Examination.model_validate(changed)


def _shown(station: Workstation, facts: ResultFacts, reading_id: str) -> Reading:
    with station.database.reading() as connection:
        return Reading.model_validate(reading_document(connection, facts, reading_id))


def _changed(station: Workstation, facts: ResultFacts, reading_id: str) -> Reading:
    """Return a reading that has changed, and tell every open page."""
    shown = _shown(station, facts, reading_id)
    _tell(station, reading_id, {"version": shown.version})
    return shown


def _tell(station: Workstation, reading_id: str, state: dict[str, Any]) -> None:
    station.hub.publish("reading", {"reading_id": reading_id, "version": state["version"]})
