"""``capsule-edge run`` as a user calls it: its files, options, exit codes and messages."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import damage
import numpy as np
import pytest
from cli_calls import LABELS, check_files, check_refused, process
from red_model import write_red_model
from study_samples import make_study
from tiny_model import write_tiny_model

from capsule_edge.cli._names import NamedRecording
from capsule_edge.cli._outcomes import Outcome, print_outcome
from capsule_edge.runtime.events import suggest
from capsule_edge.runtime.inference import PrecisionAtScore, SuggestionPrecision, SuggestionWeights
from capsule_edge.runtime.preprocessing import THRESHOLD


def test_an_int8_file_without_a_certificate_gives_a_warning(call, exam: Path, tmp_path: Path) -> None:
    bare = write_tiny_model(tmp_path / "bare.onnx", labels=LABELS, precision="int8")
    called = call("run", exam, "--model", bare, "--out", "a")
    assert (called.code, called.err.count("\n")) == (0, 1)
    assert called.err.startswith("warning: bare.onnx has no certificate")
    proven = write_tiny_model(
        tmp_path / "proven.onnx", labels=LABELS, precision="int8", parity={"conversion": {"verdict": "pass"}}
    )
    assert call("run", exam, "--model", proven, "--out", "b").err == ""


@pytest.mark.quick
def test_a_recording_leaves_four_files(call, exam: Path, red_model: Path) -> None:
    called = call("run", exam, "--model", red_model, "--out", "a/b")
    assert called.code == 0
    assert called.err == ""  # no bar where stderr is no terminal
    study = check_files(Path("a/b"))
    (event,) = study["events"]
    assert (event["label"], event["start_s"], event["end_s"]) == ("bleeding", 10.0, 16.5)
    assert "60 frames: 60 classified" in called.out
    (suggestion,) = study["suggestions"]
    assert (suggestion["label"], suggestion["events"], suggestion["precision"]) == ("bleeding", [1], None)
    assert (suggestion["alternatives"], suggestion["similar"]) == ([], 0)
    assert 0.5 < suggestion["score"] < 1
    assert "suggestions: 1, best score first (events: 1)" in called.out
    assert "Bleeding  00:00:10  00:00:16" in called.out
    assert "score: mean probability of the finding over its frames" in called.out
    assert str(Path("a/b/report.html")) in called.out
    page = Path("a/b/report.html").read_text("utf-8")
    # One event: its peak large and with a map, and a strip of 8 to 12 small pictures.
    assert page.count('data-map="data:image/png') == 1
    assert 9 <= page.count("data:image/jpeg") <= 13


def test_the_folder_is_named_after_the_recording(call, exam: Path, red_model: Path) -> None:
    assert call("run", exam, "--model", red_model).code == 0
    check_files(Path("exam.capsule-edge"))


def test_an_earlier_study_is_only_replaced_on_request(call, exam: Path, red_model: Path) -> None:
    arguments = ("run", exam, "--model", red_model, "--out", "out")
    assert call(*arguments).code == 0
    before = {path.name: path.read_bytes() for path in Path("out").iterdir()}
    called = call(*arguments, "--end", "5")
    assert called.code == 1
    assert "already holds a study.json" in called.err
    assert {path.name: path.read_bytes() for path in Path("out").iterdir()} == before
    assert call(*arguments, "--end", "5", "--overwrite").code == 0
    assert check_files(Path("out"))["ledger"]["skipped"] == 50


@pytest.mark.parametrize(("flag", "gate"), [("--gate", THRESHOLD), ("--no-gate", None)])
def test_the_gate_is_off_unless_asked_for(
    call, plain: Path, model: Path, flag: str, gate: float | None
) -> None:
    assert call("run", plain, "--model", model, "--out", "out", flag).code == 0
    assert check_files(Path("out"))["tool"]["options"]["gate"] == gate
    timing = json.loads(Path("out/timing.json").read_text("utf-8"))
    assert timing["workers"] >= 1
    assert timing["batch"] == 16


def test_options_reach_the_study(call, plain: Path, model: Path) -> None:
    called = call(
        *("run", plain, "--model", model, "--out", "out", "--threads", 1, "--backend", "onnxruntime"),
        *("--capture-fps", 3, "--start", 0.4, "--end", 2, "--every", 5),
    )
    assert called.code == 0
    study = check_files(Path("out"))
    assert study["tool"]["options"] == {
        "capture_fps": 3.0,
        "end_s": 2.0,
        "every": 5,
        "gate": None,
        "landmarks": {},
        "start_s": 0.4,
        "stream": None,
    }
    assert study["source"]["capture_fps"] == 3.0
    # 25 a second: 0.4 s is frame 10, 2 s frame 50.
    assert study["ledger"]["classified"] == 8


@pytest.mark.parametrize(("start", "end"), [("10", "16"), ("00:00:10", "0:16"), ("00:10.0", "16.0")])
def test_times_are_given_in_seconds_or_as_the_report_shows_them(
    call, exam: Path, red_model: Path, start: str, end: str
) -> None:
    arguments = ("run", exam, "--model", red_model, "--out", "out", "--start", start, "--end", end)
    assert call(*arguments).code == 0
    study = check_files(Path("out"))
    assert (study["tool"]["options"]["start_s"], study["tool"]["options"]["end_s"]) == (10.0, 16.0)
    assert study["ledger"]["classified"] == 12  # 2 a second


def test_the_rules_that_made_the_events_are_in_the_study(
    call, plain: Path, exam: Path, red_model: Path
) -> None:
    assert call("run", plain, "--model", red_model, "--out", "a").code == 0
    rules = check_files(Path("a"))["rules"]
    assert (rules["capture_fps"], rules["capture_fps_from"]) == (2.0, "assumed")
    assert rules["thresholds"]["normal"] is None
    assert 0 < rules["thresholds"]["bleeding"] < 1
    assert call("run", plain, "--model", red_model, "--out", "b", "--capture-fps", 3).code == 0
    rules = check_files(Path("b"))["rules"]
    assert (rules["capture_fps"], rules["capture_fps_from"]) == (3.0, "given")
    assert call("run", exam, "--model", red_model, "--out", "c").code == 0
    rules = check_files(Path("c"))["rules"]
    assert (rules["capture_fps"], rules["capture_fps_from"]) == (2.0, "file")
    assert rules["smoothing_s"] > 0


def test_json_is_one_document(call, exam: Path, red_model: Path) -> None:
    called = call("run", exam, "--model", red_model, "--out", "out", "--json")
    assert called.code == 0
    assert called.err == ""
    (entry,) = called.json["recordings"]
    assert entry["study"] == json.loads(Path("out/study.json").read_text("utf-8"))
    assert (entry["out"], entry["exit_code"], called.json["exit_code"]) == ("out", 0, 0)


def test_several_recordings_get_a_folder_each(call, exam: Path, plain: Path, model: Path) -> None:
    assert call("run", exam, plain, "--model", model, "--out", "all").code == 0
    for name in ("exam", "plain"):
        assert check_files(Path("all") / name)["source"]["name"] == f"{name}.mp4"
    assert call("run", exam, plain, "--model", model).code == 0
    check_files(Path("exam.capsule-edge"))
    check_files(Path("plain.capsule-edge"))


@pytest.mark.quick
def test_two_recordings_of_one_name_are_refused(call, exam: Path, model: Path, tmp_path: Path) -> None:
    twin = tmp_path / "EXAM.mkv"
    twin.write_bytes(exam.read_bytes())
    check_refused(call("run", exam, twin, "--model", model, "--out", "all"), 2, "would both be written to")


def test_dots_in_a_name_are_part_of_it(call, exam: Path, model: Path, tmp_path: Path) -> None:
    """Only a known file suffix is cut off, so ``exam.1`` and ``exam.2`` stay two names."""
    folders = [tmp_path / "exam.1", tmp_path / "exam.2"]
    for folder in folders:
        folder.mkdir()
        for number in range(2):
            cv2.imwrite(str(folder / f"{number}.png"), np.full((64, 64, 3), 90, np.uint8))
    files = [tmp_path / "1.2.840.7", tmp_path / "1.2.840.8", tmp_path / "day.one.MP4"]
    for file in files:
        file.write_bytes(exam.read_bytes())
    assert call("run", *folders, *files, "--model", model, "--out", "all").code == 0
    names = ["1.2.840.7", "1.2.840.8", "day.one", "exam.1", "exam.2"]
    assert sorted(path.name for path in Path("all").iterdir()) == names
    assert call("run", *folders, "--model", model).code == 0
    assert Path("exam.2.capsule-edge/study.json").exists()


def test_all_recordings_are_read_and_the_first_failure_gives_the_exit_code(
    call, exam: Path, plain: Path, model: Path, tmp_path: Path
) -> None:
    cut = damage.cut(plain, tmp_path / "cut.mp4", 0.5)
    absent = tmp_path / "absent.mp4"
    arguments = ("run", exam, cut, absent, plain, "--model", model, "--out", "all")
    called = call(*arguments)
    assert called.code == 1
    assert called.err.count("\n") == 1
    assert "absent.mp4' cannot be opened" in called.err
    for name in ("exam", "cut", "plain"):
        check_files(Path("all") / name)
    assert not Path("all/absent").exists()
    called = call(*arguments, "--overwrite", "--json")
    assert [entry["exit_code"] for entry in called.json["recordings"]] == [0, 3, 1, 0]
    assert called.json["recordings"][2]["error"]["code"] == "input"
    assert called.json["exit_code"] == called.code == 1
    assert called.json["error"] == called.json["recordings"][2]["error"]
    whole = call("run", exam, cut, "--model", model, "--out", "three", "--json")
    assert whole.code == 3
    assert "error" not in whole.json
    # plain is 2.4 s long: starting at 5 s is a usage error. It is the first failure, since absent comes later.
    later = call("run", exam, plain, absent, "--model", model, "--out", "late", "--start", 5, "--json")
    assert [entry["exit_code"] for entry in later.json["recordings"]] == [0, 2, 1]
    assert (later.code, later.json["error"]["code"]) == (2, "usage")
    assert call("run", exam, cut, "--model", model, "--out", "two").code == 3


def test_names_that_are_not_ascii(call, exam: Path, red_model: Path, tmp_path: Path) -> None:
    other = tmp_path / "Köhler, 検査 #1 [ok].mp4"
    other.write_bytes(exam.read_bytes())
    called = call("run", other, "--model", red_model)
    assert called.code == 0
    assert "Köhler, 検査 #1 [ok].mp4: 60 frames" in called.out
    assert check_files(Path("Köhler, 検査 #1 [ok].capsule-edge"))["source"]["name"] == other.name


def test_info_runs_through_the_same_entry_point(call, red_model: Path) -> None:
    called = call("info", red_model, "--json")
    assert called.code == 0
    assert called.json["spec"]["name"] == "red"
    check_refused(call("info", "none.onnx"), 1, "no model file at none.onnx")


def test_as_a_process_of_its_own(exam: Path, red_model: Path, tmp_path: Path) -> None:
    """The first process has a console of an old code page. The second loses the reader of its output."""
    name = tmp_path / "検査.mp4"
    name.write_bytes(exam.read_bytes())
    environment = os.environ | {"PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"}
    first = process("run", name, "--model", red_model, "--out", tmp_path / "one", env=environment)
    second = process("run", name, "--model", red_model, "--out", tmp_path / "two")
    assert second.stdout is not None
    second.stdout.close()
    out, err = first.communicate(timeout=60)
    assert (first.returncode, err) == (0, b"")
    assert "検査.mp4: 60 frames" in out.decode("utf-8")
    assert second.stderr is not None
    assert b"Traceback" not in second.stderr.read()
    second.stderr.close()
    assert second.wait(timeout=60) == 1
    check_files(tmp_path / "one")
    check_files(tmp_path / "two")


def test_a_folder_that_is_only_a_dot_keeps_its_name(
    call: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "exam"
    folder.mkdir()
    for number in range(2):
        cv2.imwrite(str(folder / f"{number}.png"), np.full((64, 64, 3), 90, np.uint8))
    monkeypatch.chdir(folder)
    model = write_red_model(tmp_path / "red.onnx")
    assert call("run", ".", "--model", model).code == 0
    study = json.loads((folder / "exam.capsule-edge" / "study.json").read_text("utf-8"))
    assert study["source"]["name"] == "exam"


@pytest.mark.quick
def test_suggestions_are_printed_with_their_measured_precision(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    study = make_study()
    rule = SuggestionPrecision(
        (PrecisionAtScore(0.5, 0.62, 0.45, 0.77, 40),), 40, "nine recordings", SuggestionWeights(0.0, {}, {})
    )
    study = replace(study, model=replace(study.model, suggestions=rule))
    found = suggest(study.events, study.frames, study.model, scale=1.0)
    recording = NamedRecording(Path("sample.mp4"), Path("out"), "sample.mp4", "sample.mp4", "out")
    outcome = Outcome(recording, 0, replace(study, suggestions=found))
    print_outcome(outcome)
    printed = " ".join(capsys.readouterr().out.split())
    assert "0.50 62 % (45 to 77 %, n = 40) 0" in printed
    assert "precision measured on nine recordings" in printed
    many = replace(study, suggestions=[replace(found[0], id=number) for number in range(1, 31)])
    print_outcome(replace(outcome, study=many))
    assert "and 6 more in the report" in capsys.readouterr().out
