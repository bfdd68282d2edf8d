"""Jobs: the same bytes as ``run``, and every way in which a reading can end."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the extra [serve] is not installed")
pytest.importorskip("httpx2", reason="httpx2 is not installed")

import odd_workers
from stations import Station, running

from capsule_edge.runtime.results.journal import JOURNAL
from capsule_edge.workstation.jobs import Limits, ReadingProcess, previews, queue
from capsule_edge.workstation.store import change_job, find_job

SAME = ("frames.csv", "report.html", "study.json")


def files_of(station: Station, study: dict[str, Any]) -> Path:
    return station.home / "studies" / study["id"] / "results" / study["current_result"]


def test_a_study_is_read_into_the_same_bytes_as_run_writes(
    station: Station, folder: str, recordings: Path, red_model: Path, tmp_path: Path, call: Any
) -> None:
    added = station.add(folder, "exam.mp4", capture_fps=2.0, landmarks={"small-bowel": 5.0})
    assert added["state"] in ("queued", "reading")
    assert added["current_result"] is None
    study = station.read(added)
    out = tmp_path / "out"
    options = ("--model", red_model, "--capture-fps", "2", "--landmark", "small-bowel=00:00:05")
    assert call("run", recordings / "exam.mp4", "--out", out, *options).code == 0
    for name in SAME:
        assert (files_of(station, study) / name).read_bytes() == (out / name).read_bytes(), name
    assert not (files_of(station, study) / JOURNAL).exists()
    facts = study["recording"]
    assert (facts["frames"], facts["time_kind"], facts["capture_fps"]) == (60, "capture", 2.0)
    assert facts["bytes"] == (recordings / "exam.mp4").stat().st_size
    assert (study["state"], study["error"], study["job"]["result_id"]) == (
        "read",
        None,
        study["current_result"],
    )
    assert study["job"]["frames_done"] == 60


def test_another_model_makes_a_second_result_and_the_first_stays(station: Station, folder: str) -> None:
    first = station.read(station.add(folder, "exam.mp4"))
    kept = {name: (files_of(station, first) / name).read_bytes() for name in SAME}
    job = station.send("POST", f"studies/{first['id']}/jobs", 201, json={"model": "small"})
    assert station.finish(job["id"])["state"] == "done"
    second = station.get(f"studies/{first['id']}")
    assert [each["model_name"] for each in second["results"]] == ["red", "capsule-edge-small"]
    assert second["current_result"] == job["id"]
    assert {name: (files_of(station, first) / name).read_bytes() for name in SAME} == kept
    old = station.get(f"studies/{first['id']}/document?result={first['current_result']}")
    assert old["model"]["name"] == "red"
    assert station.get(f"studies/{first['id']}/document")["model"]["name"] == "capsule-edge-small"


def test_a_recording_that_is_gone_or_changed_fails_in_one_line(
    station: Station, folder: str, recordings: Path, plain: Path
) -> None:
    study = station.read(station.add(folder, "exam.mp4"))
    shutil.copyfile(plain, recordings / "exam.mp4")
    job = station.finish(station.send("POST", f"studies/{study['id']}/jobs", 201)["id"])
    assert job["state"] == "failed"
    assert job["error"]["message"] == "exam.mp4 was changed after it was read before"
    (recordings / "exam.mp4").unlink()
    job = station.finish(station.send("POST", f"jobs/{job['id']}/retry", 200)["id"])
    assert job["error"]["message"] == "exam.mp4 cannot be read: no such file or directory"
    after = station.get(f"studies/{study['id']}")
    assert (after["state"], after["error"], after["current_result"]) == (
        "failed",
        job["error"],
        study["current_result"],
    )


def test_a_file_that_is_no_recording_fails_and_the_queue_goes_on(
    station: Station, folder: str, recordings: Path
) -> None:
    (recordings / "broken.mp4").write_bytes(b"\0" * 5000)
    broken = station.add(folder, "broken.mp4", title="Jane Doe")
    sound = station.add(folder, "exam.mp4")
    error = station.finish(broken["job"]["id"])["error"]
    assert error["code"] == "input"
    assert error["message"].startswith("Jane Doe ")
    assert str(recordings) not in error["message"] + error["hint"]
    assert station.read(sound)["state"] == "read"


def test_a_process_that_dies_without_a_word_is_tried_three_times(
    station: Station, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "read_order", odd_workers.crash)
    job = station.finish(station.add(folder, "exam.mp4")["job"]["id"])
    assert (job["state"], job["attempts"], job["error"]["code"]) == ("failed", 3, "crash")
    assert "ended 3 times without a result (exit code 7)" in job["error"]["message"]
    monkeypatch.undo()
    station.send("POST", f"jobs/{job['id']}/retry", 200)
    assert station.finish(job["id"])["state"] == "done"


def test_a_running_job_shows_its_progress_and_can_be_cancelled(
    station: Station, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "read_order", odd_workers.hold)
    # A preview tells of a partial result too, and may come first.
    monkeypatch.setattr(previews.PreviewQueue, "_keep", lambda *_: None)
    seen = wait_for(station, "partial")
    study = station.add(folder, "exam.mp4")
    job_id = study["job"]["id"]
    seen.wait()
    job = station.get(f"jobs/{job_id}")
    assert (job["state"], job["frames_done"], job["frames_total"]) == ("running", 3, 60)
    partial = station.get(f"studies/{study['id']}/suggestions")
    assert partial["partial"]
    assert [each["label"] for each in partial["suggestions"]] == ["ulcer", "polyp"]
    assert [each["score"] for each in partial["suggestions"]] == [None, None]
    assert station.send("POST", f"jobs/{job_id}/cancel", 200)["state"] == "cancelled"
    assert station.finish(job_id)["state"] == "cancelled"
    assert station.refuse("POST", f"jobs/{job_id}/cancel", 409)["code"] == "conflict"
    monkeypatch.undo()
    station.send("POST", f"jobs/{job_id}/retry", 200)
    assert station.finish(job_id)["state"] == "done"
    station.refuse("POST", f"jobs/{job_id}/retry", 409)


def wait_for(station: Station, kind: str) -> Any:
    """Return an object whose ``wait`` returns when the queue has told an event of this kind."""
    import threading

    told = threading.Event()
    notify = station.workstation.queue._notify

    def tell(found: str, study_id: str, job_id: str) -> None:
        notify(found, study_id, job_id)
        if found == kind:
            told.set()

    station.workstation.queue._notify = tell

    class Waiting:
        def wait(self) -> None:
            assert told.wait(60)

    return Waiting()


def test_a_study_is_deleted_while_it_is_read_and_its_recording_stays(
    station: Station, folder: str, recordings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "read_order", odd_workers.hold)
    seen = wait_for(station, "partial")
    study = station.add(folder, "exam.mp4")
    seen.wait()
    station.send("DELETE", f"studies/{study['id']}", 204)
    station.refuse("GET", f"studies/{study['id']}", 404)
    station.refuse("GET", f"jobs/{study['job']['id']}", 404)
    station.refuse("DELETE", f"studies/{study['id']}", 404)
    assert (recordings / "exam.mp4").is_file()
    assert not (station.home / "studies" / study["id"]).exists()
    monkeypatch.undo()
    assert station.read(station.add(folder, "exam.mp4"))["state"] == "read"


def test_jobs_run_in_the_order_in_which_they_were_added(
    station: Station, folder: str, recordings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "read_order", odd_workers.note_order)
    titles = [f"study {number}" for number in range(6)]
    added = []
    for number, title in enumerate(titles):
        shutil.copyfile(recordings / "exam.mp4", recordings / f"{number}.mp4")
        added.append(station.add(folder, f"{number}.mp4", title=title))
    for study in added:
        job = station.finish(study["job"]["id"])
        assert job["state"] == "failed"
        assert job["error"]["message"] == f"{study['title']} has two lines"
    assert (recordings / "order.txt").read_text().splitlines() == titles


def test_limits_of_time_and_memory_end_a_reading_and_not_the_service(
    recordings: Path, tmp_path: Path
) -> None:
    with running(tmp_path / "home", recordings, job_seconds=0.01, job_memory_bytes=48 << 20) as station:
        identity = station.get("session")["folders"][0]["id"]
        study = station.add(identity, "exam.mp4")
        job = station.finish(study["job"]["id"])
        assert job["error"]["code"] == "time"
        assert "allowed" in job["error"]["message"]
        station.workstation.queue._limits = Limits(48 << 20, 120.0)
        station.send("POST", f"jobs/{job['id']}/retry", 200)
        job = station.finish(job["id"])
        # The allocation that fails may be of Python or of a library, which then ends the process.
        assert job["state"] == "failed"
        assert job["error"]["code"] in ("memory", "crash", "internal", "backend")
        assert station.bare.get("/v1/health").status_code == 200


def test_a_job_that_ran_when_the_service_was_killed_goes_on(
    recordings: Path, red_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "read_order", odd_workers.hold)
    with running(tmp_path / "home", recordings) as station:
        station.workstation.models.use(station.workstation.models.add(red_model).sha256)
        seen = wait_for(station, "partial")
        study = station.add(station.get("session")["folders"][0]["id"], "exam.mp4")
        seen.wait()
    monkeypatch.undo()
    with running(tmp_path / "home", recordings) as station:
        assert station.read(study)["state"] == "read"
        assert station.get(f"jobs/{study['job']['id']}")["attempts"] == 1


def test_a_result_that_was_written_before_a_kill_is_taken_over(station: Station, folder: str) -> None:
    study = station.read(station.add(folder, "exam.mp4"))
    content = (files_of(station, study) / "timing.json").read_bytes()
    with station.workstation.database.writing() as connection:
        change_job(connection, study["job"]["id"], state="queued", result_id=None, finished_at=None)
    station.workstation.queue.wake()
    assert station.read(study)["current_result"] == study["current_result"]
    assert (files_of(station, study) / "timing.json").read_bytes() == content
    with station.workstation.database.reading() as connection:
        assert find_job(connection, study["job"]["id"]).attempts == 2


@pytest.mark.skipif(sys.platform == "win32", reason="named pipes of POSIX")
def test_a_reading_process_ends_when_the_service_is_killed(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    program = (
        "import signal\n"
        "from capsule_edge.workstation.jobs import Limits, ReadingProcess\n"
        "import odd_workers\n"
        f"process = ReadingProcess(odd_workers.hold_file, ({str(pipe)!r},), Limits(1 << 32, 600.0))\n"
        "signal.pause()\n"
    )
    paths = os.pathsep.join([str(Path(odd_workers.__file__).parent), os.environ.get("PYTHONPATH", "")])
    service = subprocess.Popen([sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": paths})
    try:
        with open(os.open(pipe, os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0) as held:
            assert read_within(held, 60) == b"!"
            service.kill()
            # At its end, no process has the pipe open any more.
            assert read_within(held, 60) == b""
    finally:
        service.kill()
        service.wait()


def read_within(held: Any, seconds: float) -> bytes | None:
    """Return the next byte of a pipe, nothing at its end; None if neither comes in time."""
    waiting = select.poll()
    waiting.register(held, select.POLLIN | select.POLLHUP)
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        if waiting.poll(100):
            return held.read(1)
    return None


def test_the_memory_limit_of_a_process_is_told_in_one_line(recordings: Path) -> None:
    from capsule_edge.workstation.jobs import check_recording

    process = ReadingProcess(check_recording, (recordings / "exam.mp4", "exam"), Limits(4 << 30, 60.0))
    assert list(process.messages()) == [("done", {"frames": 60, "duration_s": 30.0})]
    assert process.exit_code == 0
