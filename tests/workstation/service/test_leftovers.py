"""Nothing of a patient is left after a deletion, and nobody else of the machine can read what is there."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the extra [serve] is not installed")
pytest.importorskip("httpx2", reason="httpx2 is not installed")

from stations import Station, running

from capsule_edge.workstation.home_folder import make_home, write_opening
from capsule_edge.workstation.service import routes_studies, uploads
from capsule_edge.workstation.store import ConflictError, Database, StoreBusyError

NAME = "ZZUNIQUEPATIENTZZ"
on_posix = pytest.mark.skipif(os.name != "posix", reason="modes of files are those of POSIX")


@pytest.fixture
def idle(station: Station, monkeypatch: pytest.MonkeyPatch) -> Station:
    """A workstation that queues jobs and starts none."""
    monkeypatch.setattr(station.workstation.queue, "_take", lambda: None)
    station.workstation.queue.wake()
    return station


def at_once(call: Callable[[], Any], times: int) -> list[Any]:
    """Return the results of calls that begin together."""
    barrier = threading.Barrier(times)

    def begin(_: int) -> Any:
        barrier.wait(60)
        return call()

    with ThreadPoolExecutor(times) as pool:
        return list(pool.map(begin, range(times)))


def test_requests_at_once_add_a_recording_and_the_demo_once(idle: Station, folder: str) -> None:
    new = {"folder": folder, "path": "exam.mp4"}
    answers = at_once(lambda: idle.client.post("/v1/studies", json=new).status_code, 4)
    assert sorted(answers) == [201, 409, 409, 409]
    demos = at_once(lambda: idle.client.post("/v1/studies/demo").json()["id"], 4)
    assert len(set(demos)) == 1
    assert idle.get("studies")["total"] == 2


def files_with(home: Path, text: str) -> list[str]:
    return [path.name for path in home.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


def test_a_deleted_study_leaves_nothing_in_memory_or_in_a_file(station: Station, folder: str) -> None:
    early = station.add(folder, "exam.mp4")
    # A source from before the reading has another key than one from after it.
    assert station.client.get(f"/v1/studies/{early['id']}/frames/3").status_code == 200
    path = f"studies/{station.read(early)['id']}"
    change = {"reader": "Dr X", "version": 0, "patient_name": NAME}
    station.send("PATCH", f"{path}/examination", 200, json=change)
    assert station.client.get(f"/v1/{path}/frames/4").status_code == 200
    station.get(f"{path}/timeline")
    assert files_with(station.home, NAME)
    station.send("DELETE", path, 204)
    caches = station.workstation.frames.caches
    assert caches.ahead.wait(60)
    assert (caches.decoded.bytes, caches.encoded.bytes) == (0, 0)
    assert files_with(station.home, NAME) == []


def test_a_study_that_is_being_deleted_takes_no_job(idle: Station, folder: str) -> None:
    study = idle.add(folder, "exam.mp4")
    path = f"studies/{study['id']}"
    with idle.workstation.queue.deleting(study["id"]):
        assert idle.get(f"jobs/{study['job']['id']}")["state"] == "cancelled"
        idle.refuse("POST", f"{path}/jobs", 409)
        idle.refuse("POST", f"jobs/{study['job']['id']}/retry", 409)
        idle.refuse("DELETE", path, 409)
    # The deletion failed: the study is as before.
    idle.send("POST", f"{path}/jobs", 201)


def test_a_source_that_is_opened_while_its_study_is_deleted_is_closed(recordings: Path) -> None:
    from capsule_edge.runtime.errors import InputError
    from capsule_edge.workstation.frames import FrameStore

    store = FrameStore(most_sources=1)
    held = store.open(("a", None), recordings / "exam.mp4")
    store.open(("b", None), recordings / "exam.mp4").jpeg(0)
    store.discard_study("a")
    with pytest.raises(InputError, match="closed"):
        held.jpeg(0)
    with pytest.raises(InputError, match="deleted"):
        store.open(("a", "0"), recordings / "exam.mp4")
    store.close()


def test_a_fault_after_an_upload_was_added_keeps_its_recording(
    idle: Station, exam: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(*_: object, **__: object) -> None:
        raise StoreBusyError("another program holds the database")

    with monkeypatch.context() as patched:
        patched.setattr(routes_studies, "_study", busy)
        idle.refuse("POST", "studies/upload?name=u.mp4", 503, content=exam.read_bytes())
    (study,) = idle.get("studies")["studies"]
    place = idle.home / "studies" / study["id"] / "recording.mp4"
    assert place.read_bytes() == exam.read_bytes()
    # A fault before that leaves neither.
    monkeypatch.setattr(idle.workstation, "add", busy)
    idle.refuse("POST", "studies/upload?name=u.mp4", 503, content=exam.read_bytes())
    assert [path.name for path in (idle.home / "studies").iterdir()] == [study["id"]]


def test_an_upload_of_unknown_length_stops_before_the_disk_is_full(
    idle: Station, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = uploads.shutil.disk_usage(idle.home)
    left = [usage._replace(free=(64 << 20) + (2 << 20))]

    def parts() -> Iterator[bytes]:
        for _ in range(4):
            yield b"x" * (1 << 20)

    def shrinking(_: object) -> Any:
        found = left[0]
        left[0] = found._replace(free=found.free - (1 << 20))
        return found

    monkeypatch.setattr(uploads.shutil, "disk_usage", shrinking)
    error = idle.refuse("POST", "studies/upload?name=x.mp4", 507, content=parts())
    assert error["code"] == "disk_full"
    assert not list((idle.home / "studies").iterdir())


def test_a_model_upload_that_a_crash_left_is_removed_at_the_start(tmp_path: Path) -> None:
    left = tmp_path / "home" / "uploads" / ("a" * 32) / "model"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"part")
    with running(tmp_path / "home"):
        assert not left.exists()


@pytest.mark.skipif(os.name == "nt", reason="Windows allows no such name")
def test_a_home_with_a_question_mark_holds_its_own_database(tmp_path: Path) -> None:
    home = tmp_path / "a?b#c%20"
    home.mkdir()
    with Database.open(home / "workstation.sqlite"):
        pass
    assert (home / "workstation.sqlite").exists()
    assert [path.name for path in tmp_path.iterdir()] == [home.name]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@on_posix
def test_the_home_is_for_its_user_alone(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        make_home(tmp_path / "new" / "home")
        old = tmp_path / "old"
        old.mkdir()
        (old / "studies").mkdir()
        (old / "workstation.sqlite").write_bytes(b"")
        make_home(old)
        shared = tmp_path / "shared"
        (shared / "models").mkdir(parents=True)
        (shared / "notes").mkdir()
        make_home(shared)
    finally:
        os.umask(before)
    assert mode(tmp_path / "new" / "home") == 0o700
    assert (mode(old), mode(old / "studies"), mode(old / "workstation.sqlite")) == (0o700, 0o700, 0o600)
    # A folder of others too keeps its rights.
    assert (mode(shared), mode(shared / "notes"), mode(shared / "models")) == (0o755, 0o755, 0o700)


@on_posix
def test_models_make_the_home_for_its_user_alone(tmp_path: Path, red_model: Path, call: Any) -> None:
    before = os.umask(0o022)
    try:
        assert call("models", "add", red_model, "--home", tmp_path / "home").code == 0
    finally:
        os.umask(before)
    assert (mode(tmp_path / "home"), mode(tmp_path / "home" / "models")) == (0o700, 0o700)


def test_the_page_that_opens_the_workstation_is_for_its_user_alone(tmp_path: Path) -> None:
    path = write_opening(tmp_path, "http://127.0.0.1:1/#token=a&b")
    assert 'url=http://127.0.0.1:1/#token=a&amp;b"' in path.read_text("utf-8")
    assert os.name != "posix" or mode(path) == 0o600
    assert write_opening(tmp_path, "http://127.0.0.1:2/") == path
    assert ":2/" in path.read_text("utf-8")


def test_a_study_is_deleted_once(idle: Station, folder: str) -> None:
    study = idle.add(folder, "exam.mp4")
    answers = at_once(lambda: idle.client.delete(f"/v1/studies/{study['id']}").status_code, 3)
    assert answers.count(204) == 1
    assert set(answers) <= {204, 404, 409}
    with pytest.raises(ConflictError), idle.workstation.queue.deleting("x"):
        idle.workstation.queue.check_wanted("x")
