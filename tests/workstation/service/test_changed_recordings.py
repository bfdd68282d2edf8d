"""Recordings that change, vanish, come back or turn into links: no picture is shown that was not judged."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the extra [serve] is not installed")
pytest.importorskip("httpx2", reason="httpx2 is not installed")

import cv2
import damage
import numpy as np
import odd_workers
from stations import Station

from capsule_edge.runtime.errors import InputError
from capsule_edge.runtime.recording import random_access
from capsule_edge.workstation.frames import FrameSource, mark_recording
from capsule_edge.workstation.jobs import ReadOrder, queue, worker

PICTURES = 6


def write_picture(path: Path, level: int) -> Path:
    """Write a picture in place: the folder keeps its time of change, the file its number."""
    content = cv2.imencode(".png", np.full((64, 64, 3), level, np.uint8))[1].tobytes()
    with path.open("r+b" if path.exists() else "wb") as file:
        file.truncate()
        file.write(content)
    return path


@pytest.fixture
def series(recordings: Path) -> Path:
    """A folder of six grey pictures in the allowed folder; picture i has the level 40 + 10 * i."""
    folder = recordings / "series"
    folder.mkdir()
    for index in range(PICTURES):
        write_picture(folder / f"i{index}.png", 40 + 10 * index)
    return folder


def level(station: Station, study: dict[str, Any], index: int) -> int:
    answer = station.send("GET", f"studies/{study['id']}/frames/{index}?format=png", 200)
    return int(cv2.imdecode(np.frombuffer(answer.content, np.uint8), 1)[0, 0, 0])


def refuse_frames(station: Station, study: dict[str, Any], private: Path) -> dict[str, str]:
    """Check that every route of pictures refuses in one line that names no path. Returns the error of one."""
    error: dict[str, str] = {}
    for route in ("frames/1", "frames/1/sha256", "frames/1/map?label=bleeding", "strip?start=0&end=3"):
        error = station.refuse("GET", f"studies/{study['id']}/{route}", 409)
        assert error["code"] == "recording"
        assert str(private) not in error["message"] + error["hint"]
    return error


def test_a_series_with_a_link_that_leads_out_is_neither_listed_nor_opened(
    station: Station, folder: str, series: Path, tmp_path: Path
) -> None:
    secret = write_picture(tmp_path / "secret.png", 255)
    (series / "i3b.png").symlink_to(secret)
    station.refuse("POST", "studies", 404, json={"folder": folder, "path": "series"})
    listed = station.get("folders")["folders"][0]["recordings"]
    assert [each["path"] for each in listed] == ["exam.mp4"]
    (series / "i3b.png").unlink()
    inside = write_picture(series.parent / "elsewhere.png", 90)
    (series / "i3b.png").symlink_to(inside)
    study = station.read(station.add(folder, "series"))
    assert study["recording"]["frames"] == PICTURES + 1
    assert study["recording"]["bytes"] == sum(each.stat().st_size for each in series.iterdir())
    assert level(station, study, 4) == 90


@pytest.mark.parametrize("linked", ["a picture", "the folder", "a file"])
def test_a_recording_that_turns_into_a_link_is_not_opened_any_more(
    station: Station, folder: str, series: Path, tmp_path: Path, linked: str
) -> None:
    path = "exam.mp4" if linked == "a file" else "series"
    study = station.read(station.add(folder, path))
    station.send("GET", f"studies/{study['id']}/frames/1", 200)
    place = series / "i1.png" if linked == "a picture" else series.parent / path
    # The same bytes, so that nothing but the link can be the reason.
    if place.is_dir():
        shutil.copytree(place, tmp_path / "outside")
        shutil.rmtree(place)
    else:
        shutil.copyfile(place, tmp_path / "outside")
        place.unlink()
    place.symlink_to(tmp_path / "outside")
    assert "leads out of the folders" in refuse_frames(station, study, tmp_path)["message"]
    job = station.finish(station.send("POST", f"studies/{study['id']}/jobs", 201)["id"])
    assert (job["state"], job["error"]["code"]) == ("failed", "input")
    assert "leads out of the folders" in job["error"]["message"]
    assert str(tmp_path) not in job["error"]["message"] + job["error"]["hint"]


def test_a_picture_that_is_changed_in_place_is_not_shown_as_the_one_that_was_read(
    station: Station, folder: str, series: Path
) -> None:
    study = station.read(station.add(folder, "series"))
    assert [level(station, study, index) for index in (0, 1)] == [40, 50]
    before = series.stat().st_mtime_ns
    write_picture(series / "i1.png", 200)
    assert series.stat().st_mtime_ns == before
    refuse_frames(station, study, series.parent)
    # Another service, or the same one after it closed the recording, has nothing open that would notice.
    station.workstation.frames.discard((study["id"], study["recording"]["sha256"]))
    station.workstation.hashed.clear()
    error = refuse_frames(station, study, series.parent)
    assert error["message"] == "the recording was changed after it was read"
    assert "another name" in error["hint"]
    write_picture(series / "i1.png", 50)
    assert level(station, study, 1) == 50


def test_a_changed_recording_is_hashed_once_and_not_for_every_picture(
    station: Station, folder: str, recordings: Path, plain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from capsule_edge.workstation.service import routes_frames

    study = station.read(station.add(folder, "exam.mp4"))
    hashed: list[Path] = []
    real = routes_frames.hash_recording

    def count(path: Path) -> str:
        hashed.append(path)
        return real(path)

    monkeypatch.setattr(routes_frames, "hash_recording", count)
    station.send("GET", f"studies/{study['id']}/frames/1", 200)
    assert not hashed
    shutil.copyfile(plain, recordings / "exam.mp4")
    refuse_frames(station, study, recordings)
    assert hashed == [recordings / "exam.mp4"]


def test_a_recording_that_is_put_back_is_shown_again(
    station: Station, folder: str, recordings: Path, tmp_path: Path
) -> None:
    study = station.read(station.add(folder, "exam.mp4"))
    frame = f"studies/{study['id']}/frames/5"
    shown = station.send("GET", frame, 200).content
    shutil.copyfile(recordings / "exam.mp4", tmp_path / "copy.mp4")
    (recordings / "exam.mp4").unlink()
    error = refuse_frames(station, study, recordings)
    assert "no such file" in error["message"]
    assert "put it back" in error["hint"]
    shutil.copyfile(tmp_path / "copy.mp4", recordings / "exam.mp4")
    assert station.send("GET", frame, 200).content == shown


def test_an_unread_recording_that_is_gone_is_refused_without_its_path(
    station: Station, folder: str, recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "read_order", odd_workers.hold)
    study = station.add(folder, "exam.mp4")
    station.send("GET", f"studies/{study['id']}/frames/5", 200)
    (recordings / "exam.mp4").rename(tmp_path / "away.mp4")
    refuse_frames(station, study, recordings)
    (tmp_path / "away.mp4").rename(recordings / "exam.mp4")
    station.send("GET", f"studies/{study['id']}/frames/5", 200)


def test_a_recording_that_is_closed_while_it_is_shown_is_opened_again(
    station: Station, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = station.read(station.add(folder, "exam.mp4"))
    real, asked = FrameSource.jpeg, []

    def jpeg(self: FrameSource, index: int, size: int | None = None) -> bytes:
        asked.append(index)
        if len(asked) == 1:
            station.workstation.frames.discard((study["id"], study["recording"]["sha256"]))
        return real(self, index, size)

    monkeypatch.setattr(FrameSource, "jpeg", jpeg)
    station.send("GET", f"studies/{study['id']}/frames/5", 200)
    assert asked == [5, 5]


def test_a_file_that_is_replaced_while_it_is_decoded_is_not_shown(
    recordings: Path, plain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FrameSource.open(recordings / "exam.mp4") as source:
        real = source._reading.read

        def read(*arguments: Any) -> Any:
            shutil.copyfile(plain, recordings / "exam.mp4")
            return real(*arguments)

        monkeypatch.setattr(source._reading, "read", read)
        with pytest.raises(InputError, match="changed"):
            source.jpeg(30)


@pytest.fixture
def late(
    recordings: Path, red_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Callable[[], Any]], dict[str, Any]]:
    """Read ``exam.mp4``, let a function change it as soon as the result is written, and return the description."""
    import capsule_edge.runtime.results as results

    def read(change: Callable[[], Any]) -> dict[str, Any]:
        real, sent = results.write_study, {}

        def write(*arguments: Any, **options: Any) -> Any:
            written = real(*arguments, **options)
            change()
            return written

        monkeypatch.setattr(results, "write_study", write)
        order = ReadOrder(
            recording=recordings / "exam.mp4", title="exam", folder=tmp_path / "result", model=red_model
        )
        worker._read(order, lambda kind, content: sent.__setitem__(kind, content))
        monkeypatch.setattr(results, "write_study", real)
        found: dict[str, Any] = sent["done"]
        return found

    return read


def test_the_mark_of_a_result_is_that_of_the_recording_that_was_read(
    late: Any, recordings: Path, plain: Path
) -> None:
    before = mark_recording(recordings / "exam.mp4")
    found = late(lambda: shutil.copyfile(plain, recordings / "exam.mp4"))
    assert mark_recording(recordings / "exam.mp4") != before
    assert (found["recording"]["mark"], found["bytes"]) == (before.digest, before.bytes)
    assert found["recording"]["frame_distance_s"] == 0.5


@pytest.mark.parametrize("damaged", [False, True], ids=["sound", "damaged"])
def test_only_a_sound_recording_is_decoded_by_two_threads(
    station: Station,
    folder: str,
    recordings: Path,
    plain: Path,
    damaged: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if damaged:
        damage.blank(plain, recordings / "exam.mp4", 20)
    study = station.read(station.add(folder, "exam.mp4"))
    threads: set[int] = set()
    opened = random_access.open_decoder
    monkeypatch.setattr(
        random_access,
        "open_decoder",
        lambda *given, **more: threads.add(more["threads"]) or opened(*given, **more),
    )
    rows = station.get(f"studies/{study['id']}/frames?start=0&count=60")["rows"]
    assert ("corrupt" in {row["status"] for row in rows}) == damaged
    for row in rows[::7]:
        path = f"studies/{study['id']}/frames/{row['index']}"
        station.send("GET", path, 404 if row["status"] == "corrupt" else 200)
    assert threads == {1 if damaged else 2}


def test_a_complete_result_outlives_its_recording(late: Any, recordings: Path) -> None:
    path = recordings / "exam.mp4"
    found = late(path.unlink)
    assert (found["frames"], found["recording"]["frame_distance_s"]) == (60, 0.5)
    # The service was killed before it heard of the result: the next process takes it over.
    again = late(lambda: None)
    assert again["result"] == found["result"]
    assert (again["sha256"], again["recording"]["mark"]) == (found["sha256"], None)


def test_a_mark_tells_every_change_of_a_file(tmp_path: Path) -> None:
    folder = tmp_path / "series"
    folder.mkdir()
    first = write_picture(folder / "i1.png", 1)
    write_picture(folder / "i2.png", 2)
    known = mark_recording(folder)
    assert mark_recording(folder) == known
    facts = first.stat()
    changes: list[Callable[[], Any]] = [
        lambda: write_picture(folder / "i3.png", 3),
        lambda: first.write_bytes(first.read_bytes() + b"\0"),
        lambda: os.utime(first, ns=(facts.st_atime_ns, facts.st_mtime_ns + 10**9)),
        lambda: first.rename(folder / "i0.png"),
        lambda: (
            shutil.copy2(folder / "i2.png", folder / "new") and (folder / "new").replace(folder / "i2.png")
        ),
    ]
    for change in changes:
        change()
        now = mark_recording(folder)
        assert now.digest != known.digest
        known = now
    with pytest.raises(InputError, match="no such file"):
        mark_recording(folder / "none.mp4")
