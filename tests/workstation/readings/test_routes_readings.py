"""The routes of readings, on a recording that was really read."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the extra [serve] is not installed")
pytest.importorskip("httpx2", reason="httpx2 is not installed")

from read_station import STUDY, ReadStation


def test_a_reading_from_its_opening_to_its_end(station: ReadStation) -> None:
    reading = station.open(way="hidden_first")
    path = f"readings/{reading['id']}"
    assert (reading["pass"], reading["suggestions_hidden"], reading["version"]) == ("first", True, 1)
    refused = station.decide(reading["id"], "suggestion:1", 409, verdict="confirmed")
    assert "hidden until the first pass" in refused["error"]["message"]
    progress = station.send(
        "POST", f"{path}/seen", json={"seen": [[0, 45]], "skimmed": [[45, 60]], "seconds": 5}
    )
    assert (progress["seen_share"], progress["skimmed_share"], progress["seconds"]) == (0.75, 0.25, 5.0)
    assert station.send("PATCH", path, json={"pass": "second"})["suggestions_hidden"] is False
    decided = station.decide(
        reading["id"], "suggestion:1", verdict="confirmed", comment="oozing", seconds=2.5
    )
    assert (decided["label"], decided["progress"]["decided"]) == ("bleeding", 1)
    # A second window that has not seen this decision learns of it.
    stale = station.decide(reading["id"], "suggestion:1", 409, verdict="rejected")
    assert stale["current"]["verdict"] == "confirmed"
    assert stale["current"]["version"] == decided["version"]
    finding = {"label": "other: pouch", "start_index": 3, "end_index": 5, "id": "f" * 32}
    first = station.send("POST", f"{path}/findings", 201, json=finding)
    assert station.send("POST", f"{path}/findings", 201, json=finding)["version"] == first["version"]
    marked = station.send("PUT", f"{path}/landmarks/small-bowel", json={"index": 10})
    assert marked["landmarks"]["small-bowel"]["time_s"] == 5.0
    assert (
        station.send("PUT", f"{path}/landmarks/colon", json={"index": 50})["transit"]["small_bowel_s"] == 20
    )
    assert station.get(path)["progress"]["seen_share_small_bowel"] == 35 / 40
    # A second window that has not seen this landmark learns of it, whether it moves or removes it.
    stale = station.send("PUT", f"{path}/landmarks/colon", 409, json={"index": 55, "version": 0})
    assert stale["current"]["target"] == "landmark:colon"
    assert (stale["current"]["index"], stale["current"]["reader"]) == (50, reading["reader"])
    version = stale["current"]["version"]
    station.send("DELETE", f"{path}/landmarks/colon?version={version - 1}", 409)
    assert station.get(path)["landmarks"]["colon"]["version"] == version
    wrong = station.send("PUT", f"{path}/landmarks/end", 422, json={"index": 5})
    assert "allowed is colon before end" in wrong["error"]["message"]
    station.send("DELETE", f"{path}/landmarks/colon")
    undone = station.send("POST", f"{path}/undo", json={})
    assert (undone["action"], undone["reading"]["landmarks"]["colon"]["index"]) == ("remove_landmark", 50)
    assert station.send("POST", f"{path}/undo")["target"] == "landmark:colon"
    assert station.send("POST", f"{path}/finish")["state"] == "finished"
    station.decide(reading["id"], "suggestion:1", 409, verdict="rejected", version=decided["version"])
    assert station.send("POST", f"{path}/reopen")["state"] == "open"
    (summary,) = station.get(f"studies/{STUDY}")["readings"]
    assert (summary["id"], summary["state"]) == (reading["id"], "open")


def test_the_examination_is_changed_and_shown_with_the_study(station: ReadStation) -> None:
    path = f"studies/{STUDY}/examination"
    body = {"reader": "A", "version": 0, "patient_name": "<b>Ödön</b>", "birth_date": "1950-02-28"}
    changed = station.send("PATCH", path, json=body)
    assert station.get(f"studies/{STUDY}")["examination"] == changed["examination"]
    stale = station.send("PATCH", path, 409, json={**body, "patient_name": "B"})
    assert stale["current"]["examination"]["patient_name"] == "<b>Ödön</b>"
    for wrong in (
        {"birth_date": "28.2.1950"},
        {"indication": "x" * 4001},
        {"preparation": "\0"},
        {"name": "x"},
    ):
        error = station.send("PATCH", path, 422, json={"reader": "A", "version": 1, **wrong})["error"]
        assert error["message"].strip()
        assert "\n" not in error["message"]


def test_what_is_not_there_is_404_and_what_is_not_allowed_422(station: ReadStation) -> None:
    reading = station.open()["id"]
    for method, path, body in (
        ("GET", "readings/none", None),
        ("PUT", f"readings/{reading}/decisions/suggestion:99", {"verdict": "confirmed", "version": 0}),
        ("PUT", f"readings/{reading}/decisions/finding:{'0' * 32}", {"verdict": "added", "version": 0}),
        ("DELETE", f"readings/{reading}/landmarks/colon", None),
        ("POST", f"studies/{'0' * 32}/readings", {"reader": "A", "way": "everything"}),
        ("PATCH", f"studies/{'0' * 32}/examination", {"reader": "A", "version": 0}),
    ):
        assert station.send(method, path, 404, json=body)["error"]["code"] == "not_found"
    for method, path, body in (
        ("POST", f"studies/{STUDY}/readings", {"reader": " ", "way": "everything"}),
        ("POST", f"studies/{STUDY}/readings", {"reader": "A", "way": "backwards"}),
        ("PATCH", f"readings/{reading}", {}),
        ("PATCH", f"readings/{reading}", {"way": "everything", "pass": "second"}),
        ("PATCH", f"readings/{reading}", {"pass": "first"}),
        ("POST", f"readings/{reading}/seen", {"seen": [[0, 61]]}),
        ("POST", f"readings/{reading}/seen", {"seen": [[0]]}),
        ("POST", f"readings/{reading}/seen", {"seconds": -1}),
        ("POST", f"readings/{reading}/findings", {"label": "wart", "start_index": 0, "end_index": 1}),
        ("PUT", f"readings/{reading}/landmarks/rectum", {"index": 0}),
    ):
        assert station.send(method, path, 422, json=body)["error"]["code"] == "invalid"
    half = b'{"reader": "\\ud800", "way": "everything"}'
    assert station.send("POST", f"studies/{STUDY}/readings", 422, content=half)["error"]["code"] == "invalid"


def test_active_time_is_bounded_by_the_time_that_passed(station: ReadStation) -> None:
    reading = station.open()["id"]
    first = station.send("POST", f"readings/{reading}/seen", json={"seconds": 1e6})
    assert first["seconds"] == 60.0
    second = station.send("POST", f"readings/{reading}/seen", json={"seconds": 1e6})
    assert second["seconds"] < 120.0


def test_an_open_page_hears_of_changes(station: ReadStation) -> None:
    published = []
    station.app.state.workstation.hub.publish = lambda kind, document: published.append((kind, document))
    reading = station.open()["id"]
    version = station.decide(reading, "suggestion:1", verdict="rejected")["version"]
    assert ("reading", {"reading_id": reading, "version": version}) in published


def test_a_deleted_study_takes_its_readings_along(station: ReadStation) -> None:
    reading = station.open()["id"]
    station.decide(reading, "suggestion:1", verdict="rejected")
    station.send("DELETE", f"studies/{STUDY}", 204)
    station.get(f"readings/{reading}", 404)


def _cut_document(folder: Path, patch: pytest.MonkeyPatch) -> None:
    content = (folder / "study.json").read_bytes()
    (folder / "study.json").write_bytes(content[: len(content) // 2])


def _lengthen_field(folder: Path, patch: pytest.MonkeyPatch) -> None:
    # The reader of the standard library refuses a field of more than 131,072 characters with an error of its own.
    with (folder / "frames.csv").open("a", encoding="utf-8") as table:
        table.write("9" * 200_000 + "\n")


def _run_out_of_files(folder: Path, patch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    patch.setattr("capsule_edge.workstation.readings.result_facts._read_frames", refuse)


@pytest.mark.parametrize("harm", [_cut_document, _lengthen_field, _run_out_of_files])
def test_a_result_that_cannot_be_read_is_no_fault_of_the_request(
    station: ReadStation, monkeypatch: pytest.MonkeyPatch, harm: Any
) -> None:
    path = f"readings/{station.open()['id']}"
    opened = station.get(f"studies/{STUDY}")["readings"]
    (folder,) = (station.home / "studies" / STUDY / "results").iterdir()
    station.app.state.workstation.facts.forget("")
    harm(folder, monkeypatch)
    decision = {"verdict": "confirmed", "version": 0}
    for method, place, body in (
        ("GET", path, None),
        ("POST", f"{path}/seen", {"seen": [[0, 5]]}),
        ("PUT", f"{path}/decisions/suggestion:1", decision),
        ("POST", f"studies/{STUDY}/readings", {"reader": "A", "way": "everything"}),
    ):
        error = station.send(method, place, 503, json=body)["error"]
        assert error["code"] == "result_damaged"
        assert error["hint"]
    # What is answered with an error is not done.
    assert station.get(f"studies/{STUDY}")["readings"] == opened
