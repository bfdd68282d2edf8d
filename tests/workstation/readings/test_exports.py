"""Exports: the reading as a document, the log as JSON lines, and ``verify-log`` on both ends of the chain."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the extra [serve] is not installed")
pytest.importorskip("httpx2", reason="httpx2 is not installed")

import jsonschema
from cli_calls import Called
from read_station import STUDY, ReadExam, ReadStation, read_exam, read_station

from capsule_edge.runtime.errors import PackageError
from capsule_edge.workstation.store import Database


def _schema() -> dict[str, Any]:
    text = (resources.files("capsule_edge.workstation") / "schema/reading.schema.json").read_text("utf-8")
    schema: dict[str, Any] = json.loads(text)
    jsonschema.Draft202012Validator.check_schema(schema)
    return schema


def _decide_something(station: ReadStation) -> str:
    reading: str = station.open()["id"]
    path = f"readings/{reading}"
    station.decide(reading, "suggestion:1", verdict="relabelled", label="polyp", comment="<i>", seconds=1)
    body = {"label": "other: pouch", "start_index": 3, "end_index": 5}
    station.send("POST", f"{path}/findings", 201, json=body)
    station.send("PUT", f"{path}/landmarks/small-bowel", json={"index": 10})
    station.send("PUT", f"{path}/landmarks/colon", json={"index": 50})
    station.send("POST", f"{path}/seen", json={"seen": [[0, 20]], "skimmed": [[20, 30]], "seconds": 2})
    return reading


def test_an_exported_reading_fits_its_schema(station: ReadStation) -> None:
    checker = jsonschema.Draft202012Validator(_schema())
    hidden = station.open(way="hidden_first")["id"]
    document = station.get(f"readings/{hidden}/reading.json")
    checker.validate(document)
    assert (document["suggestions"], document["suggestions_hidden"]) == ([], True)
    reading = _decide_something(station)
    document = station.get(f"readings/{reading}/reading.json")
    checker.validate(document)
    (suggestion,) = document["suggestions"]
    assert (suggestion["label"], suggestion["verdict"]) == ("bleeding", "relabelled")
    assert suggestion["decided_label"]["label"] == "polyp"
    key = suggestion["key"]
    assert (key["segment"], key["exam_time_s"]) == ("small-bowel", key["time_s"])
    assert key["segment_share"] == pytest.approx((key["index"] - 10) / 40)
    (finding,) = document["findings"]
    assert (finding["name"], finding["key"]["segment"]) == ("pouch", "stomach")
    assert document["completeness"]["whole"] == {
        "frames": 60, "seen": 20, "skimmed": 10, "not_seen": 30, "seen_share": 20 / 60,
    }  # fmt: skip
    assert document["completeness"]["small_bowel"]["seen"] == 10
    assert document["log"]["head"] == station.get(f"studies/{STUDY}/log/verify")["head"]


def test_every_person_who_acts_in_a_reading_is_named(station: ReadStation) -> None:
    reading: str = station.open()["id"]
    path = f"readings/{reading}"
    station.decide(reading, "suggestion:1", verdict="confirmed", reader="Dr. B")
    body = {"label": "other: pouch", "start_index": 3, "end_index": 5, "reader": "Dr. C <b>"}
    station.send("POST", f"{path}/findings", 201, json=body)
    station.send("PUT", f"{path}/landmarks/colon", json={"index": 50, "reader": "Dr. D"})
    station.send("DELETE", f"{path}/landmarks/colon?reader=Dr.%20E")
    station.send("POST", f"{path}/undo", json={"reader": "Dr. F"})
    station.send("POST", f"{path}/seen", json={"seen": [[0, 20]], "seconds": 2, "reader": "Dr. G"})
    station.send("PATCH", path, json={"way": "everything", "reader": "Dr. H"})
    station.send("POST", f"{path}/finish", json={"reader": "Dr. I"})
    station.send("POST", f"{path}/reopen", json={"reader": "Dr. J"})
    station.send("POST", f"{path}/finish")
    names = ["Dr. Reader", "Dr. B", "Dr. C <b>", *(f"Dr. {letter}" for letter in "DEFGHIJ")]
    document = station.get(f"{path}/reading.json")
    jsonschema.Draft202012Validator(_schema()).validate(document)
    assert (document["reading"]["reader"], document["reading"]["readers"]) == ("Dr. Reader", names)
    assert document["suggestions"][0]["reader"] == "Dr. B"
    assert document["findings"][0]["reader"] == "Dr. C <b>"
    log = station.client.get(f"/v1/studies/{STUDY}/exports/log.jsonl").text.splitlines()
    assert [json.loads(line)["reader"] for line in log] == [*names, "Dr. Reader"]
    report = station.client.get(f"/v1/{path}/report").text
    assert "<dt>Readers, in the order of their first act</dt>" in report
    assert "<bdi>Dr. C &lt;b&gt;</bdi>" in report
    assert '<dt>Reader</dt><dd dir="auto">Dr. B</dd>' in report
    conflict = station.decide(reading, "suggestion:1", 409, verdict="rejected")
    assert "finished" in conflict["error"]["message"]
    station.send("POST", f"{path}/reopen")
    conflict = station.decide(reading, "suggestion:1", 409, verdict="rejected")
    assert conflict["current"]["reader"] == "Dr. B"
    station.decide(reading, "suggestion:1", 422, verdict="rejected", reader=" ")


def test_every_listed_export_can_be_fetched(station: ReadStation) -> None:
    _decide_something(station)
    listed = station.get(f"studies/{STUDY}/exports")
    names = [each["name"] for each in listed["exports"]]
    assert names[:5] == ["frames.csv", "study.json", "report.html", "log.jsonl", "manifest.json"]
    for each in listed["exports"]:
        if each["name"] == "report.pdf":
            continue
        answer = station.client.get(f"/v1/{each['path']}")
        assert answer.status_code == 200, each
        assert answer.headers["content-type"].partition(";")[0] == each["media_type"]
        assert listed["head_hash"] in answer.headers.get("x-log-head", "") + answer.text
    station.get(f"studies/{STUDY}/exports/workstation.sqlite", 422)
    station.get(f"studies/{'0' * 32}/exports", 404)


def test_the_manifest_holds_files_and_log_together(station: ReadStation, tmp_path: Path, call: Any) -> None:
    _decide_something(station)
    manifest = station.get(f"studies/{STUDY}/exports/manifest.json")
    assert [each["name"] for each in manifest["files"]] == [
        *("frames.csv", "study.json", "report.html", "log.jsonl")
    ]
    for each in manifest["files"]:
        content = station.client.get(f"/v1/studies/{STUDY}/exports/{each['name']}").content
        assert (each["bytes"], each["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
    assert manifest["result_id"] == station.get(f"studies/{STUDY}")["current_result"]
    path = tmp_path / "log.jsonl"
    path.write_bytes(station.client.get(f"/v1/studies/{STUDY}/exports/log.jsonl").content)
    called: Called = call("verify-log", path, "--head", manifest["log"]["head"], "--json")
    assert json.loads(called.out)["logs"][0]["lines_since"] == 0
    assert json.loads(called.out)["logs"][0]["lines"] == manifest["log"]["lines"] == 6
    station.get(f"studies/{STUDY}/exports/manifest.json?result={'0' * 32}", 404)


def test_the_exported_log_is_verified_by_the_command_line(
    station: ReadStation, tmp_path: Path, call: Any
) -> None:
    _decide_something(station)
    content = station.client.get(f"/v1/studies/{STUDY}/exports/log.jsonl").content
    path = tmp_path / "log.jsonl"
    path.write_bytes(content)
    lines = content.decode().splitlines()
    first, head = (json.loads(lines[at])["hash"] for at in (0, -1))
    called: Called = call("verify-log", path, "--head", first, "--json")
    assert called.code == 0, called.err
    assert json.loads(called.out) == {
        "valid": True,
        "logs": [{"chain": STUDY, "valid": True, "lines": 6, "head": head, "lines_since": 5}],
    }
    path.write_bytes(content.replace(b'"comment":"<i>"', b'"comment":"<b>"', 1))
    called = call("verify-log", path)
    assert (called.code, called.out) == (5, "")
    assert called.err.count("\n") == 1
    assert f"line 2 of {STUDY} was changed" in called.err
    path.write_bytes("\n".join(lines[:-1]).encode())
    assert call("verify-log", path).code == 0
    cut = call("verify-log", path, "--head", head, "--json")
    assert cut.code == 5
    assert json.loads(cut.out)["error"]["code"] == "log_fault"


def test_the_log_of_a_home_folder_is_verified_by_the_command_line(
    tmp_path: Path, read: ReadExam, call: Any
) -> None:
    home = tmp_path / "home"
    with read_station(home, read) as station:
        _decide_something(station)
        # Also while the service runs.
        called: Called = call("verify-log", "--home", home)
        assert (called.code, called.out.count("whole")) == (0, 2), called.err
    assert call("verify-log", STUDY, "--home", home).code == 0
    with Database.open(home / "workstation.sqlite") as database, database.writing() as connection:
        connection.exec_driver_sql("UPDATE decisions SET verdict = 'rejected'")
    called = call("verify-log", STUDY, "--home", home)
    assert called.code == 5
    assert "not what its log says" in called.err


def test_tables_are_rebuilt_by_the_command_line(tmp_path: Path, read: ReadExam, call: Any) -> None:
    home = tmp_path / "home"
    with read_station(home, read) as station:
        reading = _decide_something(station)
        database = station.app.state.workstation.database
        with database.writing() as connection:
            connection.exec_driver_sql(
                "UPDATE decisions SET verdict = 'rejected' WHERE target = 'suggestion:1'"
            )
        called: Called = call("verify-log", "--home", home, "--rebuild", "--json")
        assert called.code == 0, called.err
        (rebuilt,) = [each["rebuilt"] for each in json.loads(called.out)["logs"] if each["chain"] == STUDY]
        assert rebuilt == [f"decisions {reading}/suggestion:1"]
        decisions = station.get(f"readings/{reading}")["decisions"]
        assert {each["target"]: each["verdict"] for each in decisions}["suggestion:1"] == "relabelled"
    called = call("verify-log", STUDY, "--home", home, "--rebuild")
    assert (called.code, called.out.count("its tables are what it says")) == (0, 1)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("gone.jsonl", "--rebuild"), 2, "allowed is a study or none"),
        (("--home", "nowhere"), 1, "there is no workstation in nowhere"),
        (("gone.jsonl",), 1, "gone.jsonl cannot be read"),
        (("--head", "12"), 2, "allowed are 64 hexadecimal digits"),
    ],
)
def test_verify_log_says_in_one_line_what_it_needs(
    call: Any, arguments: tuple[str, ...], code: int, message: str
) -> None:
    called: Called = call("verify-log", *arguments)
    assert called.code == code
    assert message in called.err
    assert called.err.count("\n") == 1


def test_a_fault_in_the_log_is_shown_by_the_service(station: ReadStation) -> None:
    reading = _decide_something(station)
    database = station.app.state.workstation.database
    with database.writing() as connection:
        connection.exec_driver_sql("UPDATE log SET comment = 'x' WHERE sequence = 2")
    state = station.get(f"studies/{STUDY}/log/verify")
    assert state["valid"] is False
    assert "line 2 of" in state["fault"]["message"]
    # Reading goes on; the fault is in what was written before.
    station.send("POST", f"readings/{reading}/finish")


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("UPDATE log SET after = '{' WHERE sequence = 2", "line 2 of"),
        ("UPDATE studies SET examination = '{'", "the first is studies"),
        ("DROP TABLE log", "no such table: log"),
    ],
)
def test_damage_is_a_fault_for_the_service_and_the_command_line(
    station: ReadStation, call: Any, statement: str, message: str
) -> None:
    _decide_something(station)
    database = station.app.state.workstation.database
    with database.writing() as connection:
        connection.exec_driver_sql(statement)
    state = station.get(f"studies/{STUDY}/log/verify")
    assert state["valid"] is False
    assert message in state["fault"]["message"]
    called: Called = call("verify-log", "--home", station.home)
    assert (called.code, called.out) == (5, "")
    assert message in called.err
    assert called.err.count("\n") == 1


def test_the_report_shows_the_exact_frame_and_survives_without_the_recording(
    tmp_path: Path, exam: Path, red_model: Path
) -> None:
    recording = tmp_path / "exam.mp4"
    shutil.copy(exam, recording)
    read = read_exam(recording, red_model, tmp_path / "result")
    with read_station(tmp_path / "home", read) as station:
        reading = station.open()["id"]
        decided = station.decide(reading, "suggestion:1", verdict="confirmed")
        path = f"/v1/readings/{reading}/report"
        page = station.client.get(path).text
        frame = station.client.get(f"/v1/studies/{STUDY}/frames/{decided['key_index']}").content
        assert base64.b64encode(frame).decode() in page
    recording.unlink()
    with read_station(tmp_path / "second home", read, prepared=tmp_path / "home") as station:
        page = station.client.get(path).text
        assert "No picture: " in page
        assert "<img" not in page
        assert str(tmp_path) not in page
        assert "Suggestion 1 of the model, confirmed by the reader" in page


def test_without_pango_the_pdf_alone_is_refused(
    station: ReadStation, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: str) -> bytes:
        raise PackageError("a PDF needs the library Pango, which is not installed", hint="install Pango")

    monkeypatch.setattr("capsule_edge.workstation.service.routes_exports.write_pdf", fail)
    reading = station.open()["id"]
    error = station.get(f"readings/{reading}/report.pdf", 501)["error"]
    assert "Pango" in error["message"]
    assert station.client.get(f"/v1/readings/{reading}/report").status_code == 200
