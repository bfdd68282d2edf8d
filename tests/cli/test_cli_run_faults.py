"""Faults in ``capsule-edge run``: each is one line with an exit code, and nothing half-written is left."""

from __future__ import annotations

import json
import os
import signal
import threading
from pathlib import Path
from typing import Any

import damage
import numpy as np
import pytest
from cli_calls import check_files, check_refused, interrupt_reading
from thread_checks import threads_left
from tiny_model import write_tiny_model

from capsule_edge.runtime.reader import Reader
from capsule_edge.runtime.results.files import FILES
from capsule_edge.runtime.results.journal import JOURNAL
from capsule_edge.runtime.results.lock import lock_folder
from capsule_edge.runtime.termination import TerminationSignal, catch_termination


def no_video(folder: Path) -> Path:
    import av

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
def test_an_unreadable_recording_is_one_line(
    call, kind: str, plain: Path, model: Path, tmp_path: Path
) -> None:
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
    # A frame is missing if its first byte lies behind the end of the file.
    size = cut.stat().st_size
    present = sum(place < size for place, _ in damage.packet_spans(plain))
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


def test_an_out_that_cannot_be_a_folder_is_one_line(call, plain: Path, model: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("here first")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        check_refused(call("run", plain, "--model", model, "--out", out), 1, "cannot be a folder")
    assert (tmp_path / "file").read_text() == "here first"


def test_a_folder_without_rights_is_one_line(
    call, plain: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Tests may run as root, who can write everywhere. So the write itself is made to fail.
    def refuse(*_args: object, **_kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "write_bytes", refuse)
    check_refused(
        call("run", plain, "--model", model, "--out", "a/b"), 1, "cannot be written: permission denied"
    )


def test_files_that_are_no_models_are_refused(call, plain: Path, tmp_path: Path) -> None:
    bare = write_tiny_model(tmp_path / "bare.onnx", metadata=False)
    check_refused(call("run", plain, "--model", bare), 1, "carries no capsule_edge metadata")
    (tmp_path / "text.onnx").write_text("no model")
    check_refused(call("run", plain, "--model", tmp_path / "text.onnx"), 1, "is not an ONNX file")
    check_refused(call("run", plain, "--model", tmp_path / "none.onnx"), 1, "no model file at")
    called = call("run", plain, "--model", bare, "--json")
    assert called.json["error"]["code"] == "model"


def test_an_unknown_engine_is_refused(call, plain: Path, model: Path) -> None:
    check_refused(call("run", plain, "--model", model, "--backend", "abacus"), 1, "'abacus' is not known")


@pytest.mark.quick
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


@pytest.mark.quick
@pytest.mark.parametrize(
    ("number", "code", "says"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "interrupted by SIGTERM")],
)
def test_a_signal_keeps_the_journal_and_nothing_else(
    call, number: signal.Signals, code: int, says: str, exam: Path, red_model: Path, monkeypatch: Any
) -> None:
    before = signal.getsignal(number)
    arguments = ("run", exam, exam.with_name("other.mp4"), "--model", red_model, "--out", "all")
    with monkeypatch.context() as patch:
        interrupt_reading(patch, at_frame=20, number=number)  # of the second batch of 16
        called = call(*arguments)
    assert called.code == code
    assert called.err.startswith(f"error: {says}, the frames read so far are kept in ")
    assert "--resume" in called.err
    assert "Traceback" not in called.err
    assert [path.name for path in Path("all").iterdir()] == ["exam"]
    assert [path.name for path in Path("all/exam").iterdir()] == [JOURNAL]
    assert threads_left() == []
    assert signal.getsignal(number) is before
    assert call("run", exam, "--model", red_model, "--out", "all/exam", "--resume").code == 0
    assert json.loads(Path("all/exam/timing.json").read_text("utf-8"))["resumed_frames"] > 0


def test_sigterm_is_the_error_of_the_document_and_of_the_lines(
    call, exam: Path, red_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt_reading(monkeypatch, at_frame=20, number=signal.SIGTERM)
    called = call("run", exam, "--model", red_model, "--out", "a", "--json")
    assert (called.code, called.err) == (143, "")
    assert called.json["error"]["code"] == "interrupted"
    called = call("run", exam, "--model", red_model, "--out", "a", "--overwrite", "--jsonl")
    last = json.loads(called.out.splitlines()[-1])
    assert (called.code, called.err) == (143, "")
    assert (last["type"], last["error"]["code"], last["exit_code"]) == ("error", "interrupted", 143)
    assert "--resume" in last["error"]["hint"]


@pytest.mark.quick
def test_a_second_sigterm_is_left_to_the_system() -> None:
    with catch_termination():
        with pytest.raises(TerminationSignal):
            signal.raise_signal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.quick
def test_a_handler_of_others_and_other_threads_keep_sigterm() -> None:
    seen: list[int] = []
    for handler in (signal.SIG_IGN, lambda number, _frame: seen.append(number)):
        before = signal.signal(signal.SIGTERM, handler)
        try:
            with catch_termination():
                assert signal.getsignal(signal.SIGTERM) is handler
                signal.raise_signal(signal.SIGTERM)
        finally:
            signal.signal(signal.SIGTERM, before)
    assert seen == [signal.SIGTERM]

    def elsewhere() -> None:
        with catch_termination():
            seen.append(0)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert seen == [signal.SIGTERM, 0]


def test_a_full_disk_keeps_the_journal(
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


def test_an_unexpected_error_is_one_line_and_a_traceback_only_with_debug(
    call, exam: Path, red_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: object, **_options: object) -> None:
        raise ZeroDivisionError("of two\nlines")

    monkeypatch.setattr(Reader, "read", fail)
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
