"""A database with one study that a model has read, and the facts of that result."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import sqlalchemy as sa

from capsule_edge.workstation.readings import (
    ResultFacts,
    SuggestionFacts,
    append_line,
    open_reading,
    reading_document,
)
from capsule_edge.workstation.store import Database, results, studies, utc_now

STUDY, RESULT = "5" * 32, "6" * 32
FRAMES = 600
LABELS = ("angioectasia", "bleeding", "normal", "polyp")

FACTS = ResultFacts(
    frames=FRAMES,
    # Two pictures a second; the last ten are missing.
    times_s=[*(index / 2 for index in range(FRAMES - 10)), *[None] * 10],
    no_picture=[(100, 110), (FRAMES - 10, FRAMES)],
    labels=LABELS,
    suggestions={
        1: SuggestionFacts("polyp", 40, 60, 50, [(40, 60), (70, 72)]),
        2: SuggestionFacts("bleeding", 200, 260, 215, [(200, 260)]),
        3: SuggestionFacts("angioectasia", 300, 310, 301, [(300, 310)]),
    },
    capture_scale=1.0,
    document={
        "intended_use": "Research use only. Not a medical device.",
        "model": {"sha256": "b" * 64, "backend": "onnxruntime"},
        "source": {
            "sha256": "a" * 64,
            "width": 336,
            "height": 336,
            "codec": "h264",
            "duration_s": 300.0,
            "time_kind": "capture",
            "capture_fps": None,
        },
        "ledger": {
            **{"container": 600, "classified": 580, "corrupt": 10, "missing": 10, "duplicate": 0},
            **{"skipped": 0, "unread": 0, "edited_out": 0, "truncated": False, "container_source": "header"},
        },
        "warnings": [],
        "suggestions": [{"id": number, "score": 0.5, "precision": None} for number in (1, 2, 3)],
    },
)


def add_sample_study(database: Database, *, study_id: str = STUDY, result_id: str = RESULT) -> None:
    """Add a study that a model has read."""
    fields = ("patient_name", "patient_id", "birth_date", "accession_number", "procedure_date")
    with database.writing() as connection:
        connection.execute(
            sa.insert(studies).values(
                id=study_id,
                title="exam.mp4",
                path="exam.mp4",
                origin="upload",
                added_at=utc_now(),
                bytes=1000,
                sha256="a" * 64,
                frames=FRAMES,
                examination=dict.fromkeys((*fields, "indication", "preparation"), ""),
                examination_version=0,
            )
        )
        connection.execute(
            sa.insert(results).values(
                id=result_id,
                study_id=study_id,
                model_sha256="b" * 64,
                model_name="standard",
                model_version="1",
                precision="int8",
                tool_version="0.1.0",
                folder=f"studies/{study_id}/results/{result_id}",
                document_sha256="c" * 64,
                created_at=utc_now(),
            )
        )
        append_line(connection, chain="store", reader="", target=f"study:{study_id}", action="study_added")


@contextmanager
def sample_database(folder: Path) -> Iterator[Database]:
    """Yield a database with the sample study."""
    path = folder / "workstation.sqlite"
    path.write_bytes(_template())
    with Database.open(path) as database:
        yield database


@cache
def _template() -> bytes:
    """Return the file of the sample database; making one takes longer than most tests."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "workstation.sqlite"
        with Database.open(path) as database:
            add_sample_study(database)
        return path.read_bytes()


def write(database: Database, action: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Run one action in a transaction of its own."""
    with database.writing() as connection:
        return action(connection, *arguments, **options)


def begin(database: Database, *, way: str = "suggestions_first", reader: str = "Dr. Reader") -> str:
    """Open a reading of the sample study and return its id."""
    reading_id: str = write(database, open_reading, study_id=STUDY, reader=reader, way=way)
    return reading_id


def shown(database: Database, reading_id: str) -> dict[str, Any]:
    """Return the reading as the page gets it."""
    with database.reading() as connection:
        return reading_document(connection, FACTS, reading_id)
