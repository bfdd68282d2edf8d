"""Answers about a study that was read: suggestions, timeline, rows of frames, pictures, hashes, maps and events."""

from __future__ import annotations

import asyncio
import csv
import hashlib
import http.client
import io
import json
import shutil
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the extra [serve] is not installed")
pytest.importorskip("httpx2", reason="httpx2 is not installed")

from stations import Station, running, served

from capsule_edge.runtime.recording import read_frames, scan
from capsule_edge.runtime.report import describe_model
from capsule_edge.workstation.service.event_stream import EventHub
from capsule_edge.workstation.service.result_files import read_columns
from capsule_edge.workstation.service.timeline import preview_timeline, summarise_frames
from capsule_edge.workstation.service.workstation import StudyOrder

T = TypeVar("T")


@pytest.fixture(scope="module")
def place(exam: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recordings")
    shutil.copyfile(exam, folder / "exam.mp4")
    return folder


@pytest.fixture(scope="module")
def read(
    place: Path, red_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Station, dict[str, Any]]]:
    with running(tmp_path_factory.mktemp("home"), place) as station:
        station.workstation.models.use(station.workstation.models.add(red_model).sha256)
        study = station.add(station.get("session")["folders"][0]["id"], "exam.mp4")
        yield station, station.read(study)


def test_suggestions_are_those_of_the_document_with_their_events(read: Any) -> None:
    station, study = read
    document = station.get(f"studies/{study['id']}/document")
    answer = station.get(f"studies/{study['id']}/suggestions")
    assert not answer["partial"]
    assert answer["result_id"] == study["current_result"]
    assert [each["id"] for each in answer["suggestions"]] == [each["id"] for each in document["suggestions"]]
    first = answer["suggestions"][0]
    assert (first["label"], first["name"], first["role"]) == ("bleeding", "Bleeding", "finding")
    assert first["events"] == [document["events"][0]]
    assert first["events"][0]["start_index"] <= 20 <= 31 <= first["events"][0]["end_index"] + 1


def test_limits_are_those_of_the_model_and_of_the_recording(
    read: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    station, study = read
    path = f"studies/{study['id']}"
    limits = station.get(f"{path}/limits")
    spec = station.workstation.opened_model(study["results"][0]["model_sha256"]).spec
    assert limits["result_id"] == study["current_result"]
    assert limits["not_new"] == []
    assert limits["blind_spots"] == [
        f"{spot.strong} {spot.text}".strip() for spot in describe_model(spec, "").blind_spots
    ]
    document = dict(station.get(f"{path}/document"))
    document["warnings"] = [
        {"code": "seen_in_training", "message": "trained on this video"},
        {"code": "other", "message": "no"},
    ]
    monkeypatch.setattr(station.workstation.files, "document", lambda folder: document)
    assert station.get(f"{path}/limits")["not_new"] == ["trained on this video"]
    station.get(f"{path}/limits?result={'0' * 32}", 404)


def test_the_timeline_adds_up_to_the_frames(read: Any) -> None:
    station, study = read
    path = f"studies/{study['id']}/timeline"
    for bins in (1, 7, 60, 5000):
        answer = station.get(f"{path}?bins={bins}")
        assert answer["bins"] == min(bins, 60) == len(answer["colours"]) == len(answer["start_index"])
        assert sum(map(sum, answer["status"].values())) == 60 == sum(answer["status"]["classified"])
        assert answer["duration_s"] == 30.0
    # In the finest one, frames 20 to 31 are red.
    red = [index for index, p in enumerate(answer["labels"]["bleeding"]) if p > 0.5]
    assert red == list(range(20, 32))
    redness = [colour[0] - colour[1] for colour in answer["colours"]]
    assert min(redness[21:31]) > max(redness[:19] + redness[34:])


def test_rows_are_those_of_the_table(read: Any) -> None:
    station, study = read
    table = station.home / "studies" / study["id"] / "results" / study["current_result"] / "frames.csv"
    rows = list(csv.DictReader(io.StringIO(table.read_text())))
    answer = station.get(f"studies/{study['id']}/frames?start=18&count=5")
    assert answer["total"] == 60
    for found, row in zip(answer["rows"], rows[18:23], strict=True):
        assert [found["index"], found["pts"], found["status"]] == [
            int(row["index"]),
            int(row["pts"]),
            row["status"],
        ]
        assert found["time_s"] == float(row["time_s"])
        assert (found["label"], found["p"]) == (row["label"], pytest.approx(float(row[f"p_{row['label']}"])))
    assert station.get(f"studies/{study['id']}/frames?start=59&count=2000")["rows"][-1]["index"] == 59
    assert station.get(f"studies/{study['id']}/frames?start=60")["rows"] == []
    station.refuse("GET", f"studies/{study['id']}/frames?count=2001", 422)


def test_a_picture_is_the_frame_of_its_index(read: Any, place: Path) -> None:
    station, study = read
    path = f"studies/{study['id']}/frames"
    frames = {frame.index: frame.rgb() for frame in read_frames(scan(place / "exam.mp4"), [0, 25, 59])}
    for index, picture in frames.items():
        answer = station.send("GET", f"{path}/{index}?format=png", 200)
        assert answer.headers["x-frame-index"] == str(index)
        assert float(answer.headers["x-frame-time"]) == index / 2
        shown = cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
        assert np.array_equal(shown, picture)
        jpeg = station.send("GET", f"{path}/{index}", 200)
        assert jpeg.headers["content-type"] == "image/jpeg"
        assert (
            abs(
                cv2.imdecode(np.frombuffer(jpeg.content, np.uint8), 1)[..., ::-1] - picture.astype(int)
            ).mean()
            < 4
        )
    small = station.send("GET", f"{path}/25?size=32", 200)
    assert max(cv2.imdecode(np.frombuffer(small.content, np.uint8), 1).shape) == 32
    assert (
        station.refuse("GET", f"{path}/60", 404)["message"]
        == "frame is 60, the recording has the frames 0 to 59"
    )
    for odd in ("-1", "x", "1.5", "25?size=1", "25?format=gif", "1" * 30):
        station.refuse("GET", f"{path}/{odd}", 422)


def test_the_hash_and_the_map_are_of_the_models_input(read: Any, place: Path, red_model: Path) -> None:
    from capsule_edge.runtime.inference import open_model
    from capsule_edge.runtime.preprocessing import FieldOfView, preprocess_frame

    station, study = read
    path = f"studies/{study['id']}/frames/25"
    box = station.get(f"studies/{study['id']}/document")["source"]["field_of_view"]
    (frame,) = read_frames(scan(place / "exam.mp4"), [25])
    spec = open_model(red_model).spec.input
    pixels = preprocess_frame(frame, spec, FieldOfView(**box))
    answer = station.get(f"{path}/sha256")
    assert answer == {"index": 25, "sha256": hashlib.sha256(pixels.tobytes()).hexdigest(), "size": spec.size}
    found = station.get(f"{path}/map?label=bleeding")
    assert (found["width"], found["height"], len(found["values"]), max(found["values"])) == (4, 4, 16, 1.0)
    assert found["box"] == box
    assert found["contours"]
    station.refuse("GET", f"{path}/map?label=moon", 422)
    station.refuse("GET", f"{path}/map?label=bleeding&level=2", 422)


def test_a_strip_names_its_frames(read: Any) -> None:
    station, study = read
    answer = station.send("GET", f"studies/{study['id']}/strip?start=13&end=38&size=40", 200)
    assert answer.headers["x-strip-indices"] == ",".join(map(str, range(13, 38)))
    assert cv2.imdecode(np.frombuffer(answer.content, np.uint8), 1).shape[1] == 25 * 40
    station.refuse("GET", f"studies/{study['id']}/strip?start=50&end=61", 422)
    station.refuse("GET", f"studies/{study['id']}/strip?start=5&end=5", 422)
    assert station.get(f"studies/{study['id']}/access")["speed"] == "fast"


def test_the_pictures_of_a_recording_that_was_changed_are_refused(
    station: Station, folder: str, recordings: Path, plain: Path
) -> None:
    study = station.read(station.add(folder, "exam.mp4"))
    path = f"studies/{study['id']}/frames/3"
    content = (recordings / "exam.mp4").read_bytes()
    station.send("GET", path, 200)
    shutil.copyfile(plain, recordings / "exam.mp4")
    assert "changed" in station.refuse("GET", path, 409)["message"]
    (recordings / "exam.mp4").unlink()
    station.refuse("GET", path, 409)
    # The earlier file with another time of change is the same recording.
    (recordings / "exam.mp4").write_bytes(content)
    station.send("GET", path, 200)


def test_unknown_results_and_studies_are_not_found(read: Any) -> None:
    station, study = read
    for path in ("document", "timeline", "suggestions", "frames", "frames/1/sha256"):
        station.refuse("GET", f"studies/{study['id']}/{path}?result={'0' * 32}", 404)
    for path in (
        "",
        "/document",
        "/preview",
        "/timeline",
        "/suggestions",
        "/frames",
        "/frames/1",
        "/strip?start=0&end=1",
    ):
        station.refuse("GET", f"studies/{'0' * 32}{path}", 404)


def test_metrics_count_routes_and_jobs_and_name_nobody(read: Any) -> None:
    station, study = read
    station.get(f"studies/{study['id']}")
    text = station.send("GET", "metrics", 200).text
    assert 'capsule_edge_requests_total{method="GET",route="/v1/studies/{study_id}",status="200"}' in text
    assert 'capsule_edge_jobs{state="done"} 1.0' in text
    assert "capsule_edge_frames_read 60.0" in text
    assert study["id"] not in text
    assert "exam" not in text


def test_a_damaged_result_is_told(read: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    station, study = read
    path = station.home / "studies" / study["id"] / "results" / study["current_result"] / "study.json"
    content = path.read_bytes()
    station.workstation.files._documents._values.clear()
    path.write_bytes(content[:100])
    try:
        assert station.refuse("GET", f"studies/{study['id']}/suggestions", 503)["code"] == "result_damaged"
    finally:
        path.write_bytes(content)
    assert station.get(f"studies/{study['id']}/suggestions")["suggestions"]


def test_a_timeline_of_odd_frames(tmp_path: Path) -> None:
    table = tmp_path / "frames.csv"
    table.write_text(
        "index,pts,time_s,status,duplicate_of,detail,label,p_a,p_b\n"
        "0,0,0.000000,classified,,,a,0.900000,0.100000\n"
        "1,1,0.500000,duplicate,0,unfamiliar,a,0.900000,0.100000\n"
        "2,2,1.000000,corrupt,,damaged,,,\n"
        "3,,,missing,,,,,\n"
    )
    columns = read_columns(table)
    found = summarise_frames(columns, bins=2, duration_s=1.5, colours=[[1, 2, 3], None])
    assert found["status"]["classified"] == [1, 0]
    assert found["status"]["corrupt"] == [0, 1]
    assert found["status"]["missing"] == [0, 1]
    assert found["unfamiliar"] == [1, 0]
    assert found["labels"] == {"a": [0.9, 0.0], "b": [0.1, 0.0]}
    assert found["colours"] == [[1, 2, 3], None]
    assert columns.rows(3, 5) == [
        {"index": 3, "pts": None, "time_s": None, "status": "missing", "detail": "", "label": None, "p": None}
    ]
    table.write_text("index,pts,time_s,status,duplicate_of,detail,label,p_a\n")
    assert summarise_frames(read_columns(table), bins=9, duration_s=None, colours=None)["frames"] == 0
    early = preview_timeline({"frames": 10, "duration_s": 5.0, "colours": [[1, 1, 1], [2, 2, 2]]}, bins=4)
    assert early["colours"] == [[1, 1, 1], [1, 1, 1], [2, 2, 2], [2, 2, 2]]
    assert preview_timeline(None, bins=4)["frames"] == 0


def run_apart(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in a thread of its own: Playwright, once started, keeps a loop running in the main one."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


def test_events_reach_an_open_page_and_the_service_ends_with_it(
    place: Path, red_model: Path, tmp_path: Path
) -> None:
    with served(tmp_path / "home", place) as (host, port, token, station):
        station.models.use(station.models.add(red_model).sha256)
        connection = http.client.HTTPConnection(host, port, timeout=60)
        connection.request("GET", "/v1/events", headers={"Authorization": f"Bearer {token}"})
        answer = connection.getresponse()
        assert answer.status == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert next(events(answer)) == ("ping", {})
        order = StudyOrder(title="exam", path=str(place / "exam.mp4"), origin="folder", size=1)
        study_id = station.add(order)
        kinds, states = set(), []
        for kind, document in events(answer):
            kinds.add(kind)
            if kind == "study" and document["id"] == study_id:
                states.append(document["state"])
                if document["state"] in ("read", "failed"):
                    break
        assert states[0] == "queued"
        assert states[-1] == "read"
        assert {"study", "job", "partial"} <= kinds
        assert station.hub.clients == 1
    # The stream was still open, and the service ended all the same.
    connection.close()


def events(answer: http.client.HTTPResponse) -> Iterator[tuple[str, Any]]:
    kind = ""
    while line := answer.readline().decode():
        if line.startswith("event: "):
            kind = line.removeprefix("event: ").strip()
        elif line.startswith("data: "):
            yield kind, json.loads(line.removeprefix("data: "))


def test_a_stream_of_events_ends_with_its_token() -> None:
    import asyncio

    async def run() -> list[bytes]:
        hub = EventHub(ping_s=60)
        left = [0.2]
        stream = hub.stream(lambda: left[0])
        seen = [await anext(stream)]
        hub.publish("job", {"number": 1})
        seen.append(await anext(stream))
        # Published while the token held, asked for afterwards.
        hub.publish("job", {"number": 2})
        await asyncio.sleep(0)
        left[0] = 0.0
        seen += [event async for event in stream]
        assert hub.clients == 0
        # Without an event, the stream ends at that time too, not at the next ping.
        ends = iter((0.01, 0.0))
        seen += [event async for event in hub.stream(lambda: next(ends))]
        return seen

    assert len(run_apart(asyncio.wait_for(run(), 30))) == 3


def test_the_route_of_events_ends_with_the_token(tmp_path: Path) -> None:
    with served(tmp_path / "home", token_hours=4 / 3600) as (host, port, token, _):
        connection = http.client.HTTPConnection(host, port, timeout=60)
        connection.request("GET", "/v1/events", headers={"Authorization": f"Bearer {token}"})
        answer = connection.getresponse()
        assert answer.status == 200
        # Read to its end: without an end, this takes until the timeout.
        assert [kind for kind, _ in events(answer)] == ["ping"]
        connection.close()


def test_a_page_that_does_not_keep_up_is_dropped() -> None:
    import asyncio

    async def run() -> list[bytes]:
        hub = EventHub(ping_s=60)
        stream = hub.stream()
        first = [await anext(stream)]
        for number in range(300):
            hub.publish("job", {"number": number})
        await asyncio.sleep(0)
        rest = [event async for event in stream]
        assert hub.clients == 0
        return first + rest

    assert len(run_apart(run())) == 1
