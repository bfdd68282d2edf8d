"""``run --anonymous``: no path and no file name in any output, result file, file name or message."""

from __future__ import annotations

import hashlib
import html
import json
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import damage
import numpy as np
import pytest
from cli_calls import Called, check_files, interrupt_reading
from live_servers import range_server
from red_model import write_red_model

from capsule_edge.runtime import Reader, open_run, phantom
from capsule_edge.runtime.errors import CapsuleEdgeError, InputError
from capsule_edge.runtime.private_names import PrivateNames
from capsule_edge.runtime.recording import RecordingWarning, container
from capsule_edge.runtime.results.journal import JOURNAL

Call = Callable[..., Called]

# Each part of the private paths, in small letters. None is a part of an ordinary word.
SECRETS = ("zqxjk", "wvüst", "qqhöhl", "jjfrau", "xxmodel", "yyresult", "kkbild")
FOLDER, FILE = "zqxjk WVüst", "qqHöhl, jjFrau o'Neil 1970"


@pytest.fixture
def private(tmp_path: Path) -> Path:
    folder = tmp_path / FOLDER
    folder.mkdir()
    return folder


@pytest.fixture
def recording(private: Path, exam: Path) -> Path:
    return Path(shutil.copy(exam, private / f"{FILE}.mp4"))


@pytest.fixture
def model(private: Path) -> Path:
    return write_red_model(private / "xxModel 7.onnx")


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def outputs(called: Called, folder: Path | None = None) -> Iterator[str]:
    """Yield what a call printed, and the names and contents of all files in the folder where it ran."""
    yield from (called.out, called.err)
    for path in (folder or Path.cwd()).rglob("*"):
        yield str(path.relative_to(folder or Path.cwd()))
        if path.is_file():
            yield path.read_bytes().decode("utf-8", "replace")
            yield path.read_bytes().decode("utf-16-le", "replace")


def check_silent(called: Called, folder: Path | None = None) -> None:
    check_texts(*outputs(called, folder))


def check_texts(*texts: str) -> None:
    for text in texts:
        plain = text.casefold()
        assert not [secret for secret in SECRETS if secret in plain], text[:500]
        # As JSON and Python escape them.
        assert "\\xfcst" not in plain
        assert "\\u00fcst" not in plain


@pytest.mark.quick
def test_the_hash_stands_in_place_of_the_name(call: Call, recording: Path, model: Path) -> None:
    called = call("run", recording, "--model", model, "--anonymous")
    assert called.code == 0
    check_silent(called)
    name = sha256(recording)
    folder = Path(f"{name}.capsule-edge")
    study = check_files(folder)
    assert study["source"]["name"] == study["source"]["sha256"] == name
    assert called.out.startswith(f"{name}: 60 frames")
    assert f"report: {folder / 'report.html'}" in called.out
    assert f"<title>{name} - capsule-edge</title>" in (folder / "report.html").read_text("utf-8")
    timing = json.loads((folder / "timing.json").read_text("utf-8"))
    assert (timing["recording"], timing["model"]) == (name, study["model"]["sha256"])


def test_all_else_is_as_without_the_option(call: Call, recording: Path, model: Path) -> None:
    assert call("run", recording, "--model", model, "--anonymous", "--out", "a").code == 0
    assert call("run", recording, "--model", model, "--out", "b").code == 0
    assert Path("a/frames.csv").read_bytes() == Path("b/frames.csv").read_bytes()
    for name in ("study.json", "report.html"):
        named = Path("b", name).read_text("utf-8")
        for form in (recording.name, html.escape(recording.name)):
            named = named.replace(form, sha256(recording))
        assert Path("a", name).read_text("utf-8") == named


@pytest.mark.parametrize("style", ["--json", "--jsonl"])
@pytest.mark.parametrize("own", [False, True])
def test_json_names_the_hash_and_not_the_folder_that_the_user_chose(
    call: Call, style: str, own: bool, recording: Path, model: Path, private: Path
) -> None:
    out = private / "yyResult"
    called = call("run", recording, "--model", model, "--anonymous", style, *(("--out", out) if own else ()))
    assert (called.code, called.err) == (0, "")
    check_silent(called)
    if own:
        check_silent(called, out)
    name = sha256(recording)
    last = json.loads(called.out) if style == "--json" else json.loads(called.out.splitlines()[-1])
    entry = last["recordings"][0] if style == "--json" else last
    assert (entry["recording"], entry["out"]) == (name, None if own else f"{name}.capsule-edge")


@pytest.mark.quick
def test_several_recordings_a_damaged_one_and_faults(
    call: Call, recording: Path, plain: Path, model: Path, private: Path
) -> None:
    cut = damage.cut(plain, private / f"{FILE} 2.mp4", 0.5)
    absent = private / f"{FILE} 3.mp4"
    text = private / f"{FILE} 4.mp4"
    text.write_text("Dear colleague")
    videos = (recording, absent, cut, text)
    called = call("run", *videos, "--model", model, "--anonymous", "--out", private / "yyResult")
    assert called.code == 1
    check_silent(called)
    assert "error: recording 2 cannot be opened: no such file or directory" in called.err
    assert f"error: {sha256(text)} cannot be read as a recording" in called.err
    made = {path.name for path in (private / "yyResult").iterdir()}
    assert made == {sha256(recording), sha256(cut)}
    check_silent(called, private / "yyResult")
    called = call("run", *videos, "--model", model, "--anonymous", "--json")
    check_silent(called)
    assert [entry["exit_code"] for entry in called.json["recordings"]] == [0, 1, 3, 1]
    assert called.json["recordings"][1]["recording"] == "recording 2"
    called = call("run", *videos, "--model", model, "--anonymous", "--jsonl", "--overwrite")
    check_silent(called)
    lines = [json.loads(line) for line in called.out.splitlines()]
    ends = [line for line in lines if line["type"] in ("end", "error")]
    assert [line["recording"] for line in ends] == [
        sha256(recording),
        "recording 2",
        sha256(cut),
        sha256(text),
    ]


@pytest.mark.quick
def test_two_copies_of_a_recording_are_refused(
    call: Call, recording: Path, model: Path, private: Path
) -> None:
    copy = shutil.copy(recording, private / f"{FILE} again.mkv")
    called = call("run", recording, copy, "--model", model, "--anonymous")
    assert called.code == 2
    assert f"recordings 1 and 2 are the same, {sha256(recording)}" in called.err
    check_silent(called)
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.parametrize(
    "kind", ["absent", "empty", "text", "folder", "cut", "dicom", "model", "out", "usage"]
)
def test_no_error_names_anything(
    call: Call, kind: str, recording: Path, plain: Path, model: Path, private: Path
) -> None:
    path = private / f"{FILE} x.mp4"
    options: tuple[object, ...] = ()
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("qqHöhl")
    elif kind == "folder":
        path.mkdir()
        (path / "kkBild.txt").write_text("no picture")
    elif kind == "cut":
        damage.cut(damage.encode(private / "whole.mp4"), path, 0.9)
    elif kind == "dicom":
        pytest.importorskip("pydicom")
        path = private / f"{FILE}.dcm"
        path.write_bytes(bytes(128) + b"DICM" + b"\x10\x00\x10\x00PN\x40\x00qqHoehl^jjFrau")
    elif kind == "model":
        path, model = recording, private / "xxModel none.onnx"
    elif kind == "out":
        path = recording
        (private / "yyResult").write_text("a file")
        options = ("--out", private / "yyResult")
    elif kind == "usage":
        path, options = recording, ("--start", 999)
    code = 2 if kind == "usage" else 1
    for style in ((), ("--json",), ("--jsonl",)):
        called = call("run", path, "--model", model, "--anonymous", *options, *style)
        assert called.code == code, called.err
        check_silent(called)
    called = call("--debug", "run", path, "--model", model, "--anonymous", *options)
    assert called.code == code
    assert "Traceback" in called.err
    check_silent(called)


@pytest.mark.quick
def test_a_forgotten_command_does_not_repeat_the_recording(call: Call, recording: Path) -> None:
    called = call(recording, "--anonymous")
    assert called.code == 2
    check_silent(called)


def test_an_unexpected_error_tells_its_kind_alone(
    call: Call, recording: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path, *_arguments: object, **_options: object) -> None:
        raise FileNotFoundError(2, path.name, str(path))

    monkeypatch.setattr("capsule_edge.runtime.reader.resolve_request", fail)
    for style in ((), ("--json",), ("--jsonl",)):
        called = call("run", recording, "--model", model, "--anonymous", *style)
        assert called.code == 1
        assert "unexpected FileNotFoundError" in called.out + called.err
        check_silent(called)
    called = call("--debug", "run", recording, "--model", model, "--anonymous")
    assert "in fail" in called.err
    check_silent(called)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_names_nothing_and_can_be_resumed(
    call: Call, number: signal.Signals, recording: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        interrupt_reading(patch, at_frame=20, number=number)
        called = call("run", recording, "--model", model, "--anonymous")
    folder = Path(f"{sha256(recording)}.capsule-edge")
    assert called.code == {signal.SIGINT: 130, signal.SIGTERM: 143}[number]
    assert f"are kept in {folder}" in called.err
    assert [path.name for path in folder.iterdir()] == [JOURNAL]
    check_silent(called)
    called = call("run", recording, "--model", model, "--anonymous", "--resume")
    assert called.code == 0
    assert json.loads((folder / "timing.json").read_text("utf-8"))["resumed_frames"] > 0
    check_silent(called)
    called = call("run", recording, "--model", model, "--anonymous", "--resume")
    assert (called.code, called.out.splitlines()[0]) == (
        0,
        f"{sha256(recording)}: an earlier run has read it already",
    )


def test_a_study_that_names_the_recording_is_not_taken_for_an_anonymous_one(
    call: Call, recording: Path, model: Path
) -> None:
    assert call("run", recording, "--model", model, "--out", "out").code == 0
    called = call("run", recording, "--model", model, "--out", "out", "--resume", "--anonymous")
    assert called.code == 1
    assert "the results folder holds a whole study" in called.err
    assert "or one that names the recording" in called.err
    check_texts(called.out, called.err)


def test_the_progress_bar_shows_the_hash(
    call: Call, recording: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    titles: list[str] = []

    def record(name: str) -> AbstractContextManager[None]:
        titles.append(name)
        return nullcontext()

    monkeypatch.setattr("capsule_edge.cli._reading._progress_bar", record)
    assert call("run", recording, "--model", model, "--anonymous").code == 0
    assert titles == [sha256(recording)]


def test_a_folder_of_pictures_and_the_names_in_it(call: Call, model: Path, private: Path) -> None:
    folder = private / FILE
    folder.mkdir()
    for number in range(3):
        cv2.imwrite(str(folder / f"kkBild o'{number}.png"), np.full((64, 64, 3), 90 + number, np.uint8))
    (folder / "kkBild 9.png").write_bytes(b"no picture")
    called = call("run", folder, "--model", model, "--anonymous")
    assert called.code == 3
    check_silent(called)
    (made,) = Path.cwd().iterdir()
    study = check_files(made)
    assert made.name == f"{study['source']['sha256']}.capsule-edge"


@pytest.mark.quick
def test_the_codec_of_a_series_is_no_part_of_its_name(call: Call, model: Path, private: Path) -> None:
    path = private / "1.2.840.qqHöhl"
    cv2.imwrite(str(private / "page.tiff"), np.full((64, 64, 3), 90, np.uint8))
    (private / "page.tiff").rename(path)
    called = call("run", path, "--model", model, "--anonymous")
    assert called.code == 0
    check_silent(called)
    assert check_files(Path(f"{sha256(path)}.capsule-edge"))["source"]["codec"] == "tiff"


def test_the_demo_can_be_anonymous_too(call: Call, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(phantom, "Phantom", partial(phantom.Phantom, frames=40, size=96))
    for _ in range(2):
        called = call("run", "--demo", "--model", model, "--anonymous")
        assert called.code == 0, called.err
        check_silent(called)
    study = check_anonymous_demo(Path("capsule-edge-demo"))
    assert study["source"]["name"] == study["source"]["sha256"]


def check_anonymous_demo(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / "study.json").read_text("utf-8"))
    return document


def test_a_network_source_has_no_hash_and_no_address(call: Call, exam: Path, model: Path) -> None:
    with range_server(exam.read_bytes(), {}) as (address, _requests):
        called = call("run", f"{address}?who=qqHöhl", "--model", model, "--anonymous", "--jsonl")
    check_silent(called)
    assert called.code == 0, called.out
    assert "127.0.0.1" not in called.out + called.err
    assert json.loads(called.out.splitlines()[0])["recording"] == "network source"
    for style in ((), ("--jsonl",)):
        called = call(
            "run", "http://127.0.0.1:1/qqHöhl", "--model", model, "--anonymous", "--patience", 0, *style
        )
        assert called.code == (1 if style else 2)
        assert "the network source" in called.err + called.out
        check_silent(called)
        assert "127.0.0.1" not in called.out + called.err


# The option of the API.


@pytest.mark.quick
def test_reader_read_names_the_hash(recording: Path, model: Path) -> None:
    with Reader.open(model) as reader:
        study = reader.read(recording, anonymous=True)
        assert study.source.name == study.source.sha256 == sha256(recording)
        assert reader.read(recording).source.name == recording.name


def test_warnings_and_errors_of_the_api_name_nothing(
    recording: Path, model: Path, private: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    absent, text = private / "absent.mp4", private / f"{FILE} 4.mp4"
    text.write_text("Dear colleague")
    scan = container.scan_video

    def with_warning(path: Path, **options: Any) -> Any:
        found = scan(path, **options)
        object.__setattr__(
            found, "warnings", (RecordingWarning("odd", f"'{path}' beside {path.name} is odd"),)
        )
        return found

    with Reader.open(model) as reader:
        for path, word in ((absent, "the recording"), (text, sha256(text))):
            for ask in (reader.read, lambda path, **options: reader.has_read({}, path, **options)):
                with pytest.raises(InputError) as caught:
                    ask(path, anonymous=True)
                check_texts(str(caught.value), repr(caught.value.args))
                assert word in caught.value.message
                assert caught.value.__context__ is None
        with open_run(private / "yyResult") as run:
            run.journal.path.mkdir()
            with pytest.raises(CapsuleEdgeError) as failed:
                reader.read(recording, anonymous=True, journal=run.journal)
            check_texts(str(failed.value))
            run.journal.path.rmdir()
        monkeypatch.setattr("capsule_edge.runtime.recording.source.scan_video", with_warning)
        (warning,) = reader.read(recording, anonymous=True).warnings
        assert warning.message == f"{sha256(recording)} beside {sha256(recording)} is odd"


@pytest.mark.quick
@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("'/data/Doe J./exam.mp4' is empty", "recording 1 is empty"),
        ("no such file: '/DATA/DOE J./EXAM.MP4'", "no such file: recording 1"),
        ("exam.mp4: 3 frames", "recording 1: 3 frames"),
        ("'/data/Doe J./frames/a b.png' cannot be opened", "recording 2 cannot be opened"),
        ("/data/Doe J./other.mp4 is beside it", "a folder is beside it"),
        ("12 frames of the examination", "12 frames of the examination"),
        ("'frames' is a folder", "recording 2 is a folder"),
        ("/out/Doe/study.json cannot be written", "the results folder cannot be written"),
        ("rtsp://recorder/Doe cannot be read", "the network source cannot be read"),
    ],
)
def test_texts_are_cleaned(text: str, clean: str) -> None:
    names = PrivateNames(
        {Path("/data/Doe J./exam.mp4"): "recording 1", Path("/data/Doe J./frames"): "recording 2"},
        {Path("/out/Doe"): "the results folder", "rtsp://recorder/Doe": "the network source"},
    )
    assert names.clean(text) == clean
