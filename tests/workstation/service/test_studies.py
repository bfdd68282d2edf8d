"""Studies over HTTP: by path, by upload, the demo, search, and names and paths that mean harm."""

from __future__ import annotations

import os
import shutil
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the extra [serve] is not installed")
pytest.importorskip("httpx2", reason="httpx2 is not installed")

import sqlalchemy as sa
from stations import Station, running, served

from capsule_edge.runtime.errors import OutputError
from capsule_edge.workstation.readings import STORE_CHAIN
from capsule_edge.workstation.service import uploads
from capsule_edge.workstation.service.uploads import split_name
from capsule_edge.workstation.store import log

ODD_NAMES = {
    "long": "n" * 4000,
    "right to left": "\u202egpm.exe \u05d0\u05d1\u05d2 \u0627\u0644\u0639\u0631\u0628\u064a\u0629",
    "script": "<script>alert(1)</script><img src=x onerror=alert(2)>",
    "quotes": "'; DROP TABLE studies; -- \"",
    "many scripts": "Zo\u00eb \u5f20\u4f1f \U0001f9ec \u0938\u0924\u094d\u092f",
    "lines": "two\nlines\tand a tab",
}


@pytest.fixture
def idle(station: Station, monkeypatch: pytest.MonkeyPatch) -> Station:
    """A workstation that leaves every job queued, for tests that need no reading."""
    monkeypatch.setattr("capsule_edge.workstation.jobs.queue.take_next_job", lambda connection: None)
    return station


def test_folders_list_the_recordings_and_their_studies(idle: Station, folder: str, recordings: Path) -> None:
    (recordings / "notes.txt").write_text("no")
    (recordings / ".hidden.mp4").write_bytes(b"no")
    (recordings / "series").mkdir()
    (recordings / "series" / "1.png").write_bytes(b"picture")
    (recordings / "deep").mkdir()
    shutil.copyfile(recordings / "exam.mp4", recordings / "deep" / "other.mp4")
    study = idle.add(folder, "deep/other.mp4")
    (listed,) = idle.get("folders")["folders"]
    assert listed["name"] == "recordings"
    found = {each["path"]: each["study_id"] for each in listed["recordings"]}
    assert found == {"exam.mp4": None, "deep/other.mp4": study["id"], "series": None}
    assert (
        idle.refuse("POST", "studies", 409, json={"folder": folder, "path": "deep/other.mp4"})["code"]
        == "conflict"
    )


@pytest.mark.parametrize(
    "path",
    [
        "../outside.mp4",
        "deep/../../outside.mp4",
        "/etc/passwd",
        "link.mp4",
        "linked/outside.mp4",
        ".hidden.mp4",
        "notes.txt",
        "",
        ".",
        "..",
        "exam.mp4/x",
        "exam.mp4\0",
        "..\\outside.mp4",
        "x" * 3000,
        "nothing.mp4",
    ],
)
def test_paths_that_leave_the_folder_or_are_no_recording_are_refused(
    idle: Station, folder: str, recordings: Path, path: str
) -> None:
    outside = recordings.parent / "outside"
    outside.mkdir()
    for place in (recordings.parent, outside):
        shutil.copyfile(recordings / "exam.mp4", place / "outside.mp4")
    (recordings / "link.mp4").symlink_to(recordings.parent / "outside.mp4")
    (recordings / "linked").symlink_to(outside)
    (recordings / "deep").mkdir()
    (recordings / "notes.txt").write_text("no")
    shutil.copyfile(recordings / "exam.mp4", recordings / ".hidden.mp4")
    error = idle.send("POST", "studies", 422 if "\0" in path else 404, json={"folder": folder, "path": path})[
        "error"
    ]
    assert str(recordings.parent) not in error["message"] + error["hint"]
    assert idle.get("studies")["total"] == 0
    assert {each["path"] for each in idle.get("folders")["folders"][0]["recordings"]} == {"exam.mp4"}


def test_a_link_inside_the_folder_is_opened(idle: Station, folder: str, recordings: Path) -> None:
    (recordings / "inside.mp4").symlink_to(recordings / "exam.mp4")
    assert idle.add(folder, "inside.mp4")["title"] == "exam.mp4"


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names_are_kept_as_they_are(idle: Station, folder: str, name: str) -> None:
    study = idle.add(folder, "exam.mp4", title=ODD_NAMES[name])
    assert study["title"] == ODD_NAMES[name]
    assert idle.get(f"studies/{study['id']}")["title"] == ODD_NAMES[name]
    word = ODD_NAMES[name].split()[-1].upper()[:200]
    assert idle.get("studies", params={"search": word})["total"] == 1
    assert idle.get("studies", params={"search": "no such word"})["total"] == 0


@pytest.mark.parametrize("title", ["a\0b", "\ud800", "n" * 4001], ids=["NUL", "surrogate", "4001"])
def test_names_that_cannot_be_kept_are_refused_in_one_line(idle: Station, folder: str, title: str) -> None:
    import json

    body = json.dumps({"folder": folder, "path": "exam.mp4", "title": title})
    idle.refuse("POST", "studies", 422, content=body, headers={"content-type": "application/json"})
    assert idle.get("studies")["total"] == 0


@pytest.mark.parametrize(
    "more",
    [
        {"capture_fps": 0},
        {"capture_fps": -1},
        {"capture_fps": "fast"},
        {"landmarks": {"moon": 3}},
        {"landmarks": {"colon": -3}},
        {"model": "nothing"},
        {"unknown": 1},
    ],
)
def test_impossible_options_are_refused(idle: Station, folder: str, more: dict[str, Any]) -> None:
    idle.refuse("POST", "studies", 422, json={"folder": folder, "path": "exam.mp4", **more})
    assert idle.get("studies")["total"] == 0


def test_an_upload_is_read_and_its_name_is_never_a_path(station: Station, exam: Path) -> None:
    study = station.send(
        "POST", "studies/upload", 201, params={"name": "../../etc/Doe <b>.mp4"}, content=exam.read_bytes()
    )
    assert (study["title"], study["origin"]) == ("Doe <b>.mp4", "upload")
    assert study["recording"]["bytes"] == exam.stat().st_size
    place = station.home / "studies" / study["id"]
    assert [path.name for path in place.iterdir() if path.is_file()] == ["recording.mp4"]
    assert station.read(study)["recording"]["frames"] == 60
    # A deleted upload leaves nothing.
    station.send("DELETE", f"studies/{study['id']}", 204)
    assert not place.exists()


@pytest.mark.parametrize(
    ("name", "title", "suffix"),
    [
        ("exam.MP4", "exam.MP4", ".mp4"),
        ("C:\\data\\exam.avi", "exam.avi", ".avi"),
        ("a/b/c", "c", ""),
        ("..", "..", ""),
        ("exam.\u0661\u0662", "exam.\u0661\u0662", ""),
        ("exam.mp4/", "exam.mp4", ".mp4"),
        ("exam.toolongsuffix", "exam.toolongsuffix", ""),
    ],
)
def test_the_title_and_suffix_of_an_upload(name: str, title: str, suffix: str) -> None:
    assert split_name(name) == (title, suffix)


def stored(station: Station) -> list[Path]:
    return list((station.home / "studies").glob("*")) if (station.home / "studies").exists() else []


def test_uploads_that_are_no_recording_leave_nothing(idle: Station) -> None:
    for content in (b"no recording" * 1000, b"%PDF-1.7", b"<html>"):
        error = idle.refuse("POST", "studies/upload?name=x.mp4", 415, content=content)
        assert error["message"].startswith("x.mp4 ")
    idle.refuse("POST", "studies/upload?name=x.mp4", 422, content=b"")
    idle.refuse("POST", "studies/upload", 422, content=b"x")
    assert not stored(idle)


def test_an_upload_beyond_the_limit_is_refused_before_and_while_it_is_sent(
    recordings: Path, tmp_path: Path
) -> None:
    with running(tmp_path / "home", recordings, upload_bytes=100_000) as station:
        # 40 GB are announced and never sent: the answer comes first.
        headers = {"content-length": str(40 << 30)}
        error = station.refuse(
            "POST", "studies/upload?name=x.mp4", 413, headers=headers, content=iter([b"x"])
        )
        assert error["code"] == "too_large"

        def parts() -> Iterator[bytes]:
            for _ in range(3):
                yield b"x" * 65536

        station.refuse("POST", "studies/upload?name=x.mp4", 413, content=parts())
        assert not stored(station)


def test_a_full_disk_is_told_and_the_upload_removed(
    idle: Station, exam: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(idle.home)
    with monkeypatch.context() as patched:
        patched.setattr(uploads.shutil, "disk_usage", lambda path: usage._replace(free=10))
        error = idle.refuse("POST", "studies/upload?name=x.mp4", 507, content=exam.read_bytes())
        assert error["code"] == "disk_full"

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(uploads, "_receive", full)
    assert idle.refuse("POST", "studies/upload?name=x.mp4", 507, content=b"x" * 100)["code"] == "disk_full"
    assert not stored(idle)


def test_a_client_that_goes_away_during_an_upload_leaves_nothing(recordings: Path, tmp_path: Path) -> None:
    with served(tmp_path / "home", recordings) as (host, port, token, station):
        removed = threading.Event()
        remove = uploads.shutil.rmtree

        def noted(*words: Any, **options: Any) -> None:
            remove(*words, **options)
            removed.set()

        with pytest.MonkeyPatch.context() as patched, socket.create_connection((host, port)) as connection:
            patched.setattr(uploads.shutil, "rmtree", noted)
            head = (
                f"POST /v1/studies/upload?name=x.mp4 HTTP/1.1\r\nHost: {host}:{port}\r\n"
                f"Authorization: Bearer {token}\r\nContent-Length: 5000000\r\n\r\n"
            )
            connection.sendall(head.encode() + b"x" * 2_000_000)
            connection.close()
            assert removed.wait(60)
        assert not list((station.settings.home / "studies").iterdir())


def test_the_order_of_jobs_and_results_survives_a_clock_that_is_set_back(
    idle: Station, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = idle.add(folder, "exam.mp4")
    idle.send("POST", f"jobs/{study['job']['id']}/cancel", 200)
    monkeypatch.setattr(
        "capsule_edge.workstation.store.tables.utc_now", lambda: "2001-01-01T00:00:00.000000Z"
    )
    job = idle.send("POST", f"studies/{study['id']}/jobs", 201)
    assert job["created_at"] > study["job"]["created_at"]
    assert idle.get(f"studies/{study['id']}")["job"]["id"] == job["id"]


def test_the_demo_is_added_once(idle: Station) -> None:
    first = idle.send("POST", "studies/demo", 201)
    assert first["origin"] == "demo"
    assert idle.send("POST", "studies/demo", 200)["id"] == first["id"]
    idle.workstation.add_demo_if_empty()
    assert idle.get("studies")["total"] == 1


def test_the_log_of_the_store_says_what_was_added_and_deleted_and_holds_no_name(
    idle: Station, folder: str
) -> None:
    study = idle.add(folder, "exam.mp4", title="Jane Doe")
    idle.send("DELETE", f"studies/{study['id']}", 204)
    with idle.workstation.database.reading() as connection:
        lines = connection.execute(sa.select(log).where(log.c.chain == STORE_CHAIN)).mappings().all()
    actions = [(line["action"], line["target"]) for line in lines]
    assert actions[-2:] == [
        ("study_added", f"study:{study['id']}"),
        ("study_deleted", f"study:{study['id']}"),
    ]
    assert "Doe" not in str(lines)


def test_pages_of_the_list(idle: Station, folder: str, recordings: Path) -> None:
    for number in range(3):
        shutil.copyfile(recordings / "exam.mp4", recordings / f"{number}.mp4")
        idle.add(folder, f"{number}.mp4")
    titles = [each["title"] for each in idle.get("studies?limit=2")["studies"]]
    assert titles == ["2.mp4", "1.mp4"]
    rest = idle.get("studies?limit=2&offset=2")
    assert ([each["title"] for each in rest["studies"]], rest["total"]) == (["0.mp4"], 3)
    assert [each["title"] for each in idle.get("studies?search=1.mp4")["studies"]] == ["1.mp4"]


def test_a_second_service_on_the_same_home_is_refused(idle: Station) -> None:
    from capsule_edge.workstation import Settings
    from capsule_edge.workstation.service import Workstation

    with pytest.raises(OutputError, match="in use by another"), Workstation.open(Settings(home=idle.home)):
        pass


def test_leftovers_of_uploads_are_removed_at_the_start_and_nothing_else(
    recordings: Path, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    left, other = home / "studies" / ("ab" * 16), home / "studies" / "notes"
    for path in (left, other):
        path.mkdir(parents=True)
        (path / "recording.mp4").write_bytes(b"part")
    with running(home, recordings):
        assert not left.exists()
        assert other.exists()


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root reads everything")
def test_a_folder_that_cannot_be_read_is_left_out(idle: Station, recordings: Path) -> None:
    closed = recordings / "closed"
    closed.mkdir(mode=0)
    assert [each["path"] for each in idle.get("folders")["folders"][0]["recordings"]] == ["exam.mp4"]


def test_a_database_that_is_locked_or_damaged_is_told(
    idle: Station, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sqlite3

    monkeypatch.setattr("capsule_edge.workstation.store.database._WAIT_MS", 10)
    with sqlite3.connect(idle.home / "workstation.sqlite") as other:
        other.execute("BEGIN EXCLUSIVE")
        idle.workstation.database._engine.dispose()
        error = idle.refuse("POST", "studies", 503, json={"folder": folder, "path": "exam.mp4"})
        assert error["code"] in ("store_busy", "store")
        other.rollback()
    idle.workstation.database._engine.dispose()
    assert idle.get("studies")["total"] == 0
