"""Previews: the length and the colours of a new study come at once, whatever else is read."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the extra [serve] is not installed")
pytest.importorskip("httpx2", reason="httpx2 is not installed")

import odd_workers
from stations import JOB_S, Station, running

from capsule_edge.workstation.jobs import previews, queue


class Heard:
    """Everything of which the queue notifies; ``wait`` returns when a condition on it holds."""

    def __init__(self, station: Station) -> None:
        self._changed = threading.Condition()
        self.events: list[tuple[str, str]] = []
        self._notify = station.workstation.queue._notify
        station.workstation.queue._notify = self._hear

    def _hear(self, kind: str, study_id: str, job_id: str) -> None:
        self._notify(kind, study_id, job_id)
        with self._changed:
            self.events.append((kind, study_id))
            self._changed.notify_all()

    def wait(self, holds: Callable[[], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(holds, JOB_S)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every job runs for ever."""
    monkeypatch.setattr(queue, "read_order", odd_workers.hold)


def replace_process(station: Station, patch: pytest.MonkeyPatch, main: Any) -> None:
    """Let every further preview run another main function; the process that waits already is ended."""
    patch.setattr(previews, "await_preview_order", main)
    station.workstation.queue._previews._drop_spare()


def colours_of(station: Station, study: dict[str, Any]) -> list[Any] | None:
    found: list[Any] | None = station.get(f"studies/{study['id']}/preview")["colours"]
    return found


def test_a_study_that_waits_behind_a_job_has_length_and_colours(
    station: Station, folder: str, recordings: Path, held: None
) -> None:
    heard = Heard(station)
    first = station.add(folder, "exam.mp4")
    heard.wait(lambda: ("progress", first["id"]) in heard.events or ("job", first["id"]) in heard.events)
    shutil.copyfile(recordings / "exam.mp4", recordings / "second.mp4")
    second = station.add(folder, "second.mp4")
    heard.wait(lambda: colours_of(station, second) is not None)
    found = station.get(f"studies/{second['id']}")
    assert found["state"] == "queued"
    assert (found["recording"]["frames"], found["recording"]["duration_s"]) == (60, 30.0)
    colours = colours_of(station, second)
    assert colours is not None
    # Five GOPs of 12 frames: five key frames, each the colour of one of 200 bins.
    assert sum(colour is not None for colour in colours) == 5
    assert ("study", second["id"]) in heard.events
    assert ("partial", second["id"]) in heard.events


def test_previews_run_two_at_a_time_in_the_order_of_the_studies(
    station: Station, folder: str, recordings: Path, held: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[str] = []
    both, go_on = threading.Event(), threading.Event()
    real = previews.PreviewQueue._run

    def run(self: Any, study: Any) -> None:
        started.append(study.order.title)
        if len(started) >= 2:
            both.set()
        assert go_on.wait(JOB_S)
        real(self, study)

    monkeypatch.setattr(previews.PreviewQueue, "_run", run)
    heard = Heard(station)
    studies = []
    for number in range(4):
        shutil.copyfile(recordings / "exam.mp4", recordings / f"{number}.mp4")
        studies.append(station.add(folder, f"{number}.mp4"))
    assert both.wait(JOB_S)
    assert sorted(started) == ["0.mp4", "1.mp4"]
    go_on.set()
    heard.wait(lambda: all(colours_of(station, study) for study in studies))
    assert sorted(started[2:]) == ["2.mp4", "3.mp4"]


@pytest.mark.parametrize("fault", ["crash", "no process"])
def test_a_preview_that_fails_ends_neither_the_next_one_nor_the_reading(
    station: Station, folder: str, recordings: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    failed = threading.Semaphore(0)
    real = previews.PreviewQueue._run

    def run(self: Any, study: Any) -> None:
        try:
            real(self, study)
        finally:
            failed.release()

    def refuse(*_: Any) -> Any:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(previews.PreviewQueue, "_run", run)
    with monkeypatch.context() as patch:
        patch.setattr(queue, "read_order", odd_workers.hold)
        if fault == "crash":
            replace_process(station, patch, odd_workers.crash)
        else:
            patch.setattr(previews, "WaitingProcess", refuse)
            station.workstation.queue._previews._drop_spare()
        shutil.copyfile(recordings / "exam.mp4", recordings / "second.mp4")
        first = station.add(folder, "exam.mp4")
        station.add(folder, "second.mp4")
        for _ in range(2):
            assert failed.acquire(timeout=JOB_S)
        assert colours_of(station, first) is None
        station.send("POST", f"jobs/{first['job']['id']}/cancel", 200)
    # A process that waits may still be one of those that crash.
    station.workstation.queue._previews._drop_spare()
    heard = Heard(station)
    # Another try to read it is another try to preview it.
    station.send("POST", f"jobs/{first['job']['id']}/retry", 200)
    heard.wait(lambda: colours_of(station, first) is not None)
    assert all(thread.is_alive() for thread in station.workstation.queue._previews._threads)


def test_a_study_is_deleted_while_its_preview_is_made(
    station: Station, folder: str, held: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []
    started = threading.Event()
    real = previews.WaitingProcess

    def start(*arguments: Any) -> Any:
        made.append(real(*arguments))
        started.set()
        return made[-1]

    replace_process(station, monkeypatch, odd_workers.hold)
    monkeypatch.setattr(previews, "WaitingProcess", start)
    study = station.add(folder, "exam.mp4")
    assert started.wait(JOB_S)
    station.send("DELETE", f"studies/{study['id']}", 204)
    assert made[0].exit_code is not None
    station.refuse("GET", f"studies/{study['id']}", 404)


def test_a_preview_is_made_after_a_restart(
    recordings: Path, tmp_path: Path, held: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, running(tmp_path / "home", recordings) as station:
        replace_process(station, patch, odd_workers.hold)
        study = station.add(station.get("session")["folders"][0]["id"], "exam.mp4")
        assert colours_of(station, study) is None
    with running(tmp_path / "home", recordings) as station:
        heard = Heard(station)
        heard.wait(lambda: colours_of(station, study) is not None)


def test_a_process_waits_for_the_next_preview_and_is_replaced_when_it_died(
    station: Station, folder: str, recordings: Path, held: None
) -> None:
    queue_of = station.workstation.queue._previews
    for name in ("first.mp4", "second.mp4"):
        shutil.copyfile(recordings / "exam.mp4", recordings / name)
    heard = Heard(station)
    first = station.add(folder, "first.mp4")
    heard.wait(lambda: colours_of(station, first) is not None)
    with queue_of._changed:
        assert queue_of._changed.wait_for(
            lambda: queue_of._spare is not None and not queue_of._running, JOB_S
        )
        waiting = queue_of._spare
    waiting.kill()
    waiting._process.join()
    second = station.add(folder, "second.mp4")
    heard.wait(lambda: colours_of(station, second) is not None)


def test_the_waiting_process_ends_with_the_service(recordings: Path, tmp_path: Path) -> None:
    with running(tmp_path / "home", recordings) as station:
        queue_of = station.workstation.queue._previews
        with queue_of._changed:
            assert queue_of._changed.wait_for(lambda: queue_of._spare is not None, JOB_S)
            waiting = queue_of._spare
    assert waiting.exit_code is not None


def test_a_late_preview_does_not_replace_the_colours_of_the_result(station: Station, folder: str) -> None:
    study = station.read(station.add(folder, "exam.mp4"))
    kept = station.get(f"studies/{study['id']}/preview")
    assert (kept["frames"], kept["duration_s"]) == (60, 30.0)
    order = previews.PreviewOrder(Path("exam.mp4"), "exam", ())
    late = {"frames": 1, "duration_s": 1.0, "colours": None}
    station.workstation.queue._previews._keep(previews._Study(study["id"], "", order), late)
    assert station.get(f"studies/{study['id']}/preview") == kept
