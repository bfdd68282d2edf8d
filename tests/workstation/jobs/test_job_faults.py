"""Jobs go on after errors that nobody foresaw: the thread that runs them outlives each of them."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the extra [serve] is not installed")
pytest.importorskip("httpx2", reason="httpx2 is not installed")

import odd_workers
import sqlalchemy as sa
from stations import Station

from capsule_edge.workstation.jobs import queue
from capsule_edge.workstation.store import Database, StoreError


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "_RETRY_S", 0.01)


def fail_first(monkeypatch: pytest.MonkeyPatch, name: str, times: int, error: Exception) -> list[int]:
    """Let a function of the queue raise when it is called the first times. Returns a list that grows with the calls."""
    real, calls = getattr(queue, name), []

    def odd(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) <= times:
            raise error
        return real(*arguments, **options)

    monkeypatch.setattr(queue, name, odd)
    return calls


def test_a_process_that_cannot_be_started_is_tried_again(
    station: Station, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = BlockingIOError(11, "Resource temporarily unavailable")
    calls = fail_first(monkeypatch, "ReadingProcess", 2, error)
    study = station.read(station.add(folder, "exam.mp4"))
    assert (len(calls), study["job"]["attempts"], study["state"]) == (3, 3, "read")


def test_a_job_fails_in_one_line_where_no_process_can_be_started_and_the_next_is_read(
    station: Station,
    folder: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    calls = fail_first(monkeypatch, "ReadingProcess", 3, OSError("/home/Jane Doe/exam.mp4"))
    job = station.finish(station.add(folder, "exam.mp4", title="Jane Doe")["job"]["id"])
    assert (job["state"], job["attempts"], job["error"]["code"], len(calls)) == ("failed", 3, "internal", 3)
    assert job["error"]["message"] == "the reading was tried 3 times and ended by OSError"
    assert "a job ended by OSError" in caplog.text
    assert "Jane" not in caplog.text
    station.send("POST", f"jobs/{job['id']}/retry", 200)
    assert station.finish(job["id"])["state"] == "done"


@pytest.mark.parametrize(
    "error",
    [
        sa.exc.OperationalError("UPDATE", {}, sqlite3.OperationalError("locking protocol")),
        sa.exc.IntegrityError("INSERT", {}, sqlite3.IntegrityError("UNIQUE constraint failed")),
        RuntimeError("nobody foresaw this"),
    ],
    ids=["operational", "integrity", "runtime"],
)
def test_a_result_is_entered_after_an_unknown_error_of_the_database(
    station: Station, folder: str, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    calls = fail_first(monkeypatch, "add_result", 1, error)
    study = station.read(station.add(folder, "exam.mp4"))
    assert (len(calls), study["state"], len(study["results"])) == (2, "read", 1)


def test_the_process_of_a_job_is_ended_where_its_messages_cannot_be_taken_over(
    station: Station, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []
    real = queue.ReadingProcess

    def start(*arguments: Any) -> Any:
        made.append(real(*arguments))
        return made[-1]

    def refuse(*_: Any) -> None:
        raise ValueError("a message of another form")

    monkeypatch.setattr(queue, "read_order", odd_workers.hold)
    monkeypatch.setattr(queue, "ReadingProcess", start)
    monkeypatch.setattr(station.workstation.queue, "_note", refuse)
    job = station.finish(station.add(folder, "exam.mp4")["job"]["id"])
    assert (job["state"], len(made)) == ("failed", 3)
    assert all(process.exit_code is not None for process in made)


def test_a_change_that_cannot_be_announced_ends_no_job(station: Station, folder: str) -> None:
    def refuse(*_: Any) -> None:
        raise RuntimeError("no page hears this")

    station.workstation.queue._notify = refuse
    study = station.add(folder, "exam.mp4")
    assert station.read(study)["state"] == "read"
    assert all(thread.is_alive() for thread in station.workstation.queue._threads)


def test_errors_of_the_database_name_no_patient(tmp_path: Path) -> None:
    with Database.open(tmp_path / "store.sqlite") as database:
        with pytest.raises(StoreError) as unknown, database.writing() as connection:
            connection.execute(sa.text("INSERT INTO nothing VALUES (:name)"), {"name": "Jane Doe"})
        assert unknown.value.message == "the database reported SQLITE_ERROR (store.sqlite)"
        with pytest.raises(sa.exc.IntegrityError) as refused, database.writing() as connection:
            connection.execute(
                sa.text("INSERT INTO jobs (id, study_id, state) VALUES (:name, :name, 'x')"),
                {"name": "Jane Doe"},
            )
        assert "Jane" not in str(refused.value) + str(unknown.value.__cause__)
