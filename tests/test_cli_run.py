"""``capsule-edge run`` as a user calls it: one line a fault, nothing half-written, exit codes."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import cv2
import damage
import jsonschema
import numpy as np
import onnx
import pytest
from red_model import write_exam, write_red_model
from tiny_model import write_tiny_model

from capsule_edge.cli.main import COMMANDS, main
from capsule_edge.runtime.gate import THRESHOLD
from capsule_edge.runtime.locks import lock_folder
from capsule_edge.runtime.outputs import FILES
from capsule_edge.runtime.reader import Reader
from capsule_edge.runtime.resume import JOURNAL
from capsule_edge.runtime.study import STATUSES

LABELS = (
    *("normal", "angioectasia", "bleeding", "erosion", "erythema"),
    *("foreign_body", "lymphangiectasia", "polyp", "ulcer", "worms"),
)
FAST_START = {"movflags": "faststart"}


@dataclass(frozen=True)
class Called:
    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.out)
        return document


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Run the command line in an empty folder; returns the exit code and what was printed."""
    empty = tmp_path / "here"
    empty.mkdir()
    monkeypatch.chdir(empty)

    def run(*arguments: object) -> Called:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        code = ended.value.code
        assert isinstance(code, int)
        return Called(code, *capsys.readouterr())

    return run


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model") / "tiny.onnx", labels=LABELS)


@pytest.fixture(scope="module")
def red_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_red_model(tmp_path_factory.mktemp("red") / "red.onnx")


@pytest.fixture(scope="module")
def exam(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 frames, 2 a second; 20 to 31 are red."""
    return write_exam(tmp_path_factory.mktemp("exam") / "exam.mp4")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 frames at 25 a second, with the index in front."""
    return damage.encode(tmp_path_factory.mktemp("plain") / "plain.mp4", muxer=FAST_START)


def check_files(folder: Path) -> dict[str, Any]:
    """The four files and nothing else, and that they agree; returns study.json."""
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    study: dict[str, Any] = json.loads((folder / "study.json").read_text("utf-8"))
    schema = json.loads(
        (resources.files("capsule_edge.runtime") / "schema" / "study.schema.json").read_text("utf-8")
    )
    jsonschema.validate(study, schema)
    with (folder / "frames.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    ledger = study["ledger"]
    assert [int(row["index"]) for row in rows] == list(range(ledger["container"]))
    assert {status: ledger[status] for status in STATUSES} == {
        status: sum(row["status"] == status for row in rows) for status in STATUSES
    }
    assert json.loads((folder / "timing.json").read_text("utf-8"))["read_s"] > 0
    return study


def check_refused(called: Called, code: int, says: str) -> None:
    """One line on stderr, none on stdout, nothing left in the working folder."""
    assert called.code == code
    assert called.out == ""
    assert called.err.count("\n") == 1
    assert called.err.startswith("error: ")
    assert says in called.err
    assert "Traceback" not in called.err
    assert list(Path.cwd().iterdir()) == []


def test_an_int8_file_without_a_certificate_is_warned_of(call, exam: Path, tmp_path: Path) -> None:
    bare = write_tiny_model(tmp_path / "bare.onnx", labels=LABELS, precision="int8")
    called = call("run", exam, "--model", bare, "--out", "a")
    assert (called.code, called.err.count("\n")) == (0, 1)
    assert called.err.startswith("warning: bare.onnx has no certificate")
    proven = write_tiny_model(
        tmp_path / "proven.onnx", labels=LABELS, precision="int8", parity={"conversion": {"verdict": "pass"}}
    )
    assert call("run", exam, "--model", proven, "--out", "b").err == ""


def test_a_recording_leaves_four_files(call, exam: Path, red_model: Path) -> None:
    called = call("run", exam, "--model", red_model, "--out", "a/b")
    assert called.code == 0
    assert called.err == ""  # no bar where stderr is no terminal
    study = check_files(Path("a/b"))
    (event,) = study["events"]
    assert (event["label"], event["start_s"], event["end_s"]) == ("bleeding", 10.0, 16.5)
    assert "60 frames: 60 classified" in called.out
    assert "Bleeding  00:00:10  00:00:16" in called.out
    assert str(Path("a/b/report.html")) in called.out
    page = Path("a/b/report.html").read_text("utf-8")
    assert page.count('data-map="data:image/png') == page.count("data:image/jpeg") == 1


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
    assert call("run", plain, "--model", model, "--out", "out", flag, "--no-autotune").code == 0
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


def test_what_made_events_is_in_the_study(call, plain: Path, exam: Path, red_model: Path) -> None:
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


def test_two_recordings_of_one_name_are_refused(call, exam: Path, model: Path, tmp_path: Path) -> None:
    twin = tmp_path / "EXAM.mkv"
    twin.write_bytes(exam.read_bytes())
    check_refused(call("run", exam, twin, "--model", model, "--out", "all"), 2, "would both be written to")


def test_dots_in_a_name_are_part_of_it(call, exam: Path, model: Path, tmp_path: Path) -> None:
    """Only the suffix of a format is left out: ``exam.1`` and ``exam.2`` are two."""
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


def test_the_worst_of_several_counts_and_the_others_are_read(
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
    # The first that failed: plain is 2.4 s long, so that it has no frame there, which is usage; absent comes later.
    later = call("run", exam, plain, absent, "--model", model, "--out", "late", "--start", 5, "--json")
    assert [entry["exit_code"] for entry in later.json["recordings"]] == [0, 2, 1]
    assert (later.code, later.json["error"]["code"]) == (2, "usage")
    assert call("run", exam, cut, "--model", model, "--out", "two").code == 3


def no_video(folder: Path) -> Path:
    import av
    import numpy as np

    path = folder / "sound.mp4"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("aac", rate=48000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 48000
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def unreadable(kind: str, folder: Path, plain: Path) -> Path:
    path = folder / "recording.mp4"
    if kind == "text":
        path.write_text("Dear colleague, please find attached", encoding="utf-8")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "folder":
        path.mkdir()
    elif kind == "no video":
        return no_video(folder)
    elif kind == "index cut off":
        whole = damage.encode(folder / "last.mp4")  # without faststart its index comes last
        return damage.cut(whole, path, 0.9)
    return path


BAD = {
    "missing": "cannot be opened: no such file or directory",
    "folder": "is a folder without images",
    "text": "cannot be read as a recording",
    "empty": "is empty (0 bytes)",
    "no video": "holds no video, only audio",
    "index cut off": "because the file was cut before its end (copy it again",
}


@pytest.mark.parametrize("kind", BAD)
def test_what_cannot_be_read_is_one_line(call, kind: str, plain: Path, model: Path, tmp_path: Path) -> None:
    path = unreadable(kind, tmp_path, plain)
    check_refused(call("run", path, "--model", model), 1, BAD[kind])
    check_refused(call("run", path, "--model", model, "--out", "a/b/c"), 1, BAD[kind])
    called = call("run", path, "--model", model, "--json")
    assert (called.code, called.err) == (1, "")
    assert set(called.json) == {"error"}
    assert called.json["error"]["code"] == "input"
    assert BAD[kind].split(" (copy")[0] in called.json["error"]["message"]
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_cut_mp4_with_its_index_in_front_is_read_as_far_as_it_goes(
    call, share: float, plain: Path, model: Path, tmp_path: Path
) -> None:
    cut = damage.cut(plain, tmp_path / "cut.mp4", share)
    called = call("run", cut, "--model", model, "--out", "out")
    assert called.code == 3
    assert called.err == ""
    ledger = check_files(Path("out"))["ledger"]
    # Announced less present: a picture is present when its first byte is in the file.
    size = cut.stat().st_size
    present = sum(place < size for place, _ in damage.places(plain))
    assert (ledger["container"], ledger["missing"]) == (60, 60 - present)
    assert ledger["truncated"] is True
    assert ledger["classified"] > 0
    assert f"{60 - present} missing, the file is cut" in called.out


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_cut_mkv_is_read_as_far_as_it_goes(
    call, share: float, plain: Path, model: Path, tmp_path: Path
) -> None:
    whole = damage.remux(plain, tmp_path / "whole.mkv")
    data = whole.read_bytes()
    cut = tmp_path / "cut.mkv"
    start = data.index(b"\x1f\x43\xb6\x75")  # the first Cluster, behind the headers
    cut.write_bytes(data[: start + int((len(data) - start) * share)])
    assert call("run", cut, "--model", model, "--out", "out").code == 3
    ledger = check_files(Path("out"))["ledger"]
    assert ledger["truncated"] is True
    assert 0 < ledger["classified"] < 60


def test_bit_flips_are_counted_alike_for_every_thread_setting(
    call, plain: Path, model: Path, tmp_path: Path
) -> None:
    flipped = damage.flip(plain, tmp_path / "flipped.mp4", list(range(5, 55)), seed=4, bits=4)
    assert flipped.read_bytes() != plain.read_bytes()
    files = []
    for threads in (0, 1, 2, 4):
        assert call("run", flipped, "--model", model, "--out", f"t{threads}", "--threads", threads).code == 3
        ledger = check_files(Path(f"t{threads}"))["ledger"]
        assert ledger["corrupt"] > 0
        assert ledger["classified"] + ledger["corrupt"] == ledger["container"] == 60
        files.append(
            {name: Path(f"t{threads}", name).read_bytes() for name in FILES if name != "timing.json"}
        )
    assert all(other == files[0] for other in files)


def test_a_folder_in_which_another_run_writes_is_refused(call, exam: Path, red_model: Path) -> None:
    arguments = ("run", exam, "--model", red_model, "--out", "out", "--overwrite")
    assert call(*arguments).code == 0
    before = {path.name: path.read_bytes() for path in Path("out").iterdir()}
    with lock_folder("out"):
        called = call(*arguments)
    assert (called.code, called.out) == (1, "")
    assert "another run is writing to out" in called.err
    assert called.err.count("\n") == 1
    assert {path.name: path.read_bytes() for path in Path("out").iterdir()} == before


def test_a_folder_that_cannot_be_is_one_line(call, plain: Path, model: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("here first")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        check_refused(call("run", plain, "--model", model, "--out", out), 1, "cannot be a folder")
    assert (tmp_path / "file").read_text() == "here first"


def test_a_folder_without_rights_is_one_line(
    call, plain: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The tests may run as a user to whom nothing is forbidden.
    def refuse(*_args: object, **_kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "write_bytes", refuse)
    check_refused(
        call("run", plain, "--model", model, "--out", "a/b"), 1, "cannot be written: permission denied"
    )


def test_models_that_are_none(call, plain: Path, tmp_path: Path) -> None:
    bare = write_tiny_model(tmp_path / "bare.onnx", metadata=False)
    check_refused(call("run", plain, "--model", bare), 1, "carries no capsule_edge metadata")
    (tmp_path / "text.onnx").write_text("no model")
    check_refused(call("run", plain, "--model", tmp_path / "text.onnx"), 1, "is no model that onnxruntime")
    check_refused(call("run", plain, "--model", tmp_path / "none.onnx"), 1, "no model file at")
    called = call("run", plain, "--model", bare, "--json")
    assert called.json["error"]["code"] == "model"


def test_an_engine_that_is_none(call, plain: Path, model: Path) -> None:
    check_refused(call("run", plain, "--model", model, "--backend", "abacus"), 1, "'abacus' is not known")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "no VIDEO was given"),
        (("--demo", "a.mp4"), "--demo makes its own recording"),
        (("a.mp4", "--threads", "-1"), "'--threads'"),
        (("a.mp4", "--bogus"), "--bogus"),
    ],
)
def test_usage_errors(call, arguments: tuple[str, ...], says: str) -> None:
    check_refused(call("run", *arguments), 2, says)
    called = call("run", *arguments, "--json")
    assert (called.code, called.json["error"]["code"]) == (2, "usage")


@pytest.mark.parametrize(
    "option",
    [
        ("--start", "99"),
        ("--start", "1:60"),
        ("--end", "-1"),
        ("--every", "0"),
        ("--capture-fps", "nan"),
    ],
)
def test_impossible_values_are_usage_errors(call, option: tuple[str, str], plain: Path, model: Path) -> None:
    check_refused(call("run", plain, "--model", model, *option), 2, option[1])


def test_control_c_leaves_nothing(call, exam: Path, red_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = Reader._record
    batches = []

    def interrupted(self: Reader, *arguments: Any) -> None:
        record(self, *arguments)
        batches.append(1)
        if len(batches) == 2:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Reader, "_record", interrupted)
    called = call("run", exam, exam.with_name("other.mp4"), "--model", red_model, "--out", "all")
    assert called.code == 130
    assert "interrupted" in called.err
    assert "Traceback" not in called.err
    assert "--resume" in called.err
    assert len(batches) == 2
    assert [path.name for path in Path("all").iterdir()] == ["exam"]
    assert [path.name for path in Path("all/exam").iterdir()] == [JOURNAL]
    assert not any(thread.name in ("decode", "prepare", "infer") for thread in threading.enumerate())


def test_a_full_disk_leaves_what_is_answered(
    call, exam: Path, red_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    arguments = ("run", exam, "--model", red_model, "--out", "a/b")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        called = call(*arguments)
    assert (called.code, called.out, called.err.count("\n")) == (1, "", 1)
    assert "no space left on device" in called.err
    assert [path.name for path in Path("a/b").iterdir()] == [JOURNAL]
    assert call(*arguments, "--resume").code == 0
    check_files(Path("a/b"))


def test_a_fault_of_ours_is_one_line_and_a_traceback_only_on_request(
    call, exam: Path, red_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: object) -> None:
        raise ZeroDivisionError("of two\nlines")

    monkeypatch.setattr(Reader, "_record", fail)
    check_refused(call("run", exam, "--model", red_model), 1, "ZeroDivisionError: of two lines")
    called = call("run", exam, "--model", red_model, "--json")
    assert called.json["error"]["code"] == "internal"
    for recordings in ((exam,), (exam, exam.with_name("other.mp4"))):
        called = call("run", *recordings, "--model", red_model)
        assert called.code == 1
        assert "Traceback" not in called.err
        called = call("--debug", "run", *recordings, "--model", red_model)
        assert called.code == 1
        assert "Traceback" in called.err
        assert "in fail" in called.err  # where it happened


def test_names_that_are_not_ascii(call, exam: Path, red_model: Path, tmp_path: Path) -> None:
    other = tmp_path / "Köhler, 検査 #1 [ok].mp4"
    other.write_bytes(exam.read_bytes())
    called = call("run", other, "--model", red_model)
    assert called.code == 0
    assert "Köhler, 検査 #1 [ok].mp4: 60 frames" in called.out
    assert check_files(Path("Köhler, 検査 #1 [ok].capsule-edge"))["source"]["name"] == other.name


def test_the_overview_lists_what_there_is(call) -> None:
    called = call("--help")
    assert called.code == 0
    for name in ("run", "info", "evaluate", "compare", "export"):
        assert f"  {name} " in called.out
    check_refused(call("walk"), 2, "no command 'walk'")
    assert set(COMMANDS) >= {"run", "info", "evaluate", "compare", "train", "export"}


@pytest.mark.parametrize("name", ["run", "info", "evaluate", "compare", "export"])
def test_every_command_has_an_example(call, name: str) -> None:
    called = call(name, "--help")
    assert called.code == 0
    assert f"capsule-edge {name} " in called.out.split("Example")[1]


def test_other_commands_answer_through_the_same_door(call, red_model: Path) -> None:
    called = call("info", red_model, "--json")
    assert called.code == 0
    assert called.json["spec"]["name"] == "red"
    check_refused(call("info", "none.onnx"), 1, "no model file at none.onnx")


def process(*arguments: object, **options: Any) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", "from capsule_edge.cli.main import main; main()"]
    return subprocess.Popen(
        [*command, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options
    )


def test_as_a_process_of_its_own(exam: Path, red_model: Path, tmp_path: Path) -> None:
    """The code page of an old console does not matter, and neither does a reader that goes away."""
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


def test_landmarks_by_hand_reach_the_study_and_the_report(call, red_model: Path, exam: Path) -> None:
    found = call(
        "run",
        exam,
        "--model",
        red_model,
        "--landmark",
        "small-bowel=00:00:05",
        "--landmark",
        "colon=0:25",
        "--json",
    )
    assert found.code == 0
    study = check_files(Path("exam.capsule-edge"))
    landmarks = study["landmarks"]
    assert landmarks["assessed"] is False  # the model looked for none
    assert [(mark["name"], mark["time_s"], mark["source"]) for mark in landmarks["marks"]] == [
        ("small-bowel", 5.0, "hand"),
        ("colon", 25.0, "hand"),
    ]
    assert landmarks["transit"]["small_bowel_s"] == 20.0
    (event,) = study["events"]
    share = round((event["peak_s"] - 5) / 20, 6)
    assert landmarks["positions"] == [{"event": 1, "segment": "small-bowel", "share": share}]
    assert study["tool"]["options"]["landmarks"] == {"small-bowel": 5.0, "colon": 25.0}


def test_a_model_that_sees_a_landmark_and_the_view_says_so(
    call, red_model: Path, exam: Path, tmp_path: Path
) -> None:
    """The red model under other names: what is red is the pylorus, and its third label the view."""
    model = onnx.load(str(red_model))
    (metadata,) = model.metadata_props
    spec = json.loads(metadata.value)
    spec["labels"][1] |= {"key": "pylorus", "name": "Pylorus", "role": "landmark"}
    spec["labels"][2] |= {"key": "bubbles", "name": "Bubbles", "role": "quality"}
    spec["operating_points"] = {
        new: spec["operating_points"][old] for old, new in (("bleeding", "pylorus"), ("polyp", "bubbles"))
    }
    metadata.value = json.dumps(spec)
    onnx.save(model, str(tmp_path / "guide.onnx"))
    assert call("run", exam, "--model", tmp_path / "guide.onnx").code == 0
    study = check_files(Path("exam.capsule-edge"))
    assert study["events"] == []  # no label of it is a finding
    (mark,) = study["landmarks"]["marks"]
    assert (mark["name"], mark["source"], mark["label"]) == ("small-bowel", "model", "pylorus")
    # Frames 20 to 31 of 2 a second are red, to 16 s; the mean over 2 s takes in a frame or two beside them.
    assert mark["time_s"] == pytest.approx(16.0, abs=1.0)
    transit = study["landmarks"]["transit"]
    assert (transit["gastric_s"], transit["gastric_from"]) == (mark["time_s"], "recording")
    assert transit["small_bowel_s"] is None
    assert study["quality"] | {"labels": None} == {
        "assessed": True,
        "labels": None,
        "reduced_frames": 0,
        "reduced_share": 0.0,
    }
    page = Path("exam.capsule-edge/report.html").read_text("utf-8")
    assert "suggested by the model (Pylorus)" in page
    assert "reduced on 0 of 60 frames" in page


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--landmark", "ileum=1"), "allowed is NAME=TIME with a NAME of stomach, small-bowel, colon, end"),
        (("--landmark", "colon=01:00:00"), "colon is at 3600 s, allowed is 0 to 30 s"),
        (("--landmark", "colon=1", "--landmark", "small-bowel=2"), "allowed is small-bowel before colon"),
    ],
)
def test_a_landmark_that_cannot_be_leaves_nothing(
    call, red_model: Path, exam: Path, options, words: str
) -> None:
    found = call("run", exam, "--model", red_model, *options)
    assert found.code == 2
    assert words in found.err
    assert len(found.err.strip().splitlines()) == 1
    assert list(Path().iterdir()) == []


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
