"""A run that is killed, interrupted or out of disk goes on and ends in the same bytes."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import damage
import numpy as np
import pytest
from red_model import view, write_exam, write_red_model

from capsule_edge.runtime import Reader
from capsule_edge.runtime.results import Journal, study_document
from capsule_edge.runtime.results.files import FILES, frames_csv
from capsule_edge.runtime.results.journal import JOURNAL
from capsule_edge.runtime.study import FrameRecord

# All but timing.json, which holds what differs from run to run.
SAME = ("frames.csv", "report.html", "study.json")


FRAMES = 400


posix = pytest.mark.skipif(os.name != "posix", reason="needs signals of POSIX")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_red_model(tmp_path_factory.mktemp("model") / "red.onnx")


@pytest.fixture(scope="module")
def exam(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """400 frames, some red, some damaged, in a folder and file with spaces and letters beyond ASCII."""
    folder = tmp_path_factory.mktemp("Köhler und Söhne 検査")
    red = {index for index in range(FRAMES) if index % 100 in range(40, 55)}
    whole = write_exam(folder / "whole.mp4", frames=FRAMES, red=red)
    return damage.flip(whole, folder / "Müller, 検査 1.mp4", range(130, 250, 15), seed=3, bits=8)


def command(exam: Path, model: Path, out: Path, *options: str) -> list[str]:
    code = "from capsule_edge.cli.main import main; main()"
    arguments = ["run", str(exam), "--model", str(model), "--out", str(out), "--jsonl", *options]
    return [sys.executable, "-c", code, *arguments]


def run(exam: Path, model: Path, out: Path, *options: str, **more: object) -> tuple[int, list[dict], str]:
    done = subprocess.run(
        command(exam, model, out, *options),
        capture_output=True,
        timeout=120,
        **more,  # type: ignore[call-overload]
    )
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr.decode()


@pytest.fixture(scope="module")
def whole(exam: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], list]:
    """What a run leaves that nobody disturbed, and its lines."""
    out = tmp_path_factory.mktemp("whole") / "out"
    code, lines, err = run(exam, model, out)
    assert (code, err) == (3, "")
    ledger = lines[-1]["ledger"]
    assert ledger["corrupt"] > 0
    assert ledger["classified"] > 200
    assert len([line for line in lines if line["type"] == "event"]) >= 3
    return contents(out), lines


def contents(out: Path) -> dict[str, bytes]:
    assert sorted(path.name for path in out.iterdir()) == sorted(FILES)
    return {name: (out / name).read_bytes() for name in SAME}


def stop(process: subprocess.Popen[bytes], how: signal.Signals, after: int) -> bytes:
    """Read so many lines, then send the signal; returns what it said on stderr."""
    assert process.stdout is not None
    for _ in range(after):
        process.stdout.readline()
    process.send_signal(how)
    return process.communicate(timeout=60)[1]


def without_out(lines: list[dict]) -> list[dict]:
    return [{key: value for key, value in line.items() if key != "out"} for line in lines]


@posix
@pytest.mark.parametrize("seed", range(4))
def test_killed_at_any_moment_it_goes_on_and_ends_in_the_same_bytes(
    seed: int, exam: Path, model: Path, whole: tuple[dict[str, bytes], list], tmp_path: Path
) -> None:
    """The lines say where a run is; each is killed further on, up to the very end."""
    rng = random.Random(seed)
    out = tmp_path / "Ergebnis 結果"
    for after in sorted(rng.sample(range(1, FRAMES + 6), 3)):
        process = subprocess.Popen(command(exam, model, out, "--resume"), stdout=subprocess.PIPE)
        stop(process, signal.SIGKILL, after)
        assert process.returncode == -signal.SIGKILL
        assert not (out / "study.json").exists() or contents_of_names(out) == whole[0]
    code, lines, err = run(exam, model, out, "--resume")
    assert (code, err) == (3, "")
    assert contents(out) == whole[0]
    # A listener hears of every frame again, whatever was answered before.
    assert without_out(lines) == without_out(whole[1])


DYING = """
import os, signal, sys
from capsule_edge.cli.main import main
true, calls, at = os.replace, iter(range(99)), int(sys.argv.pop(1))
def replace(source, target):
    if next(calls) == at:
        os.kill(os.getpid(), signal.SIGKILL)
    true(source, target)
os.replace = replace
main()
"""


@posix
@pytest.mark.parametrize("earlier", [False, True])
@pytest.mark.parametrize("at", [0, 3, 7])
def test_killed_between_the_moves_of_its_files_it_goes_on(
    at: int, earlier: bool, exam: Path, model: Path, whole: tuple[dict[str, bytes], list], tmp_path: Path
) -> None:
    """Before the first move, amid them, and before the last, which is that of study.json."""
    out = tmp_path / "out"
    if earlier:
        assert run(exam, model, out, "--every", "7")[0] == 3
    arguments = command(exam, model, out, *(["--overwrite"] if earlier else []))[3:]
    died = subprocess.run(
        [sys.executable, "-c", DYING, str(at), *arguments], capture_output=True, timeout=120
    )
    assert died.returncode == -signal.SIGKILL
    # At the first call the sign of an earlier study is still there, and all its files; later none is.
    assert (out / "study.json").exists() == (earlier and at == 0)
    assert run(exam, model, out, "--resume")[0] == 3
    assert contents(out) == whole[0]


def contents_of_names(out: Path) -> dict[str, bytes]:
    return {name: (out / name).read_bytes() for name in SAME}


@posix
def test_what_was_answered_is_not_answered_again(exam: Path, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = subprocess.Popen(command(exam, model, out), stdout=subprocess.PIPE)
    stop(process, signal.SIGKILL, 300)
    assert run(exam, model, out, "--resume")[0] == 3
    timing = json.loads((out / "timing.json").read_text("utf-8"))
    # Line 300 is frame 298; what lies behind the last classified frame of the journal is answered again, and no
    # stretch of damage in this recording is longer than 120 frames.
    assert 298 - 120 <= timing["resumed_frames"] < FRAMES


@posix
def test_control_c_leaves_what_can_be_gone_on_with(
    exam: Path, model: Path, whole: tuple[dict[str, bytes], list], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    process = subprocess.Popen(command(exam, model, out), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    # What is left does not fit in the pipe, so the run is still there.
    for _ in range(100):
        process.stdout.readline()
    process.send_signal(signal.SIGINT)
    rest, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == b""
    last = json.loads(rest.splitlines()[-1])
    assert (last["type"], last["error"]["code"], last["exit_code"]) == ("error", "interrupted", 130)
    assert "--resume" in last["error"]["hint"]
    assert [path.name for path in out.iterdir()] == [JOURNAL]
    code, lines, err_text = run(exam, model, out)
    assert (code, err_text) == (1, "")
    assert "holds an interrupted run" in lines[-1]["error"]["message"]
    assert run(exam, model, out, "--resume")[0] == 3
    assert contents(out) == whole[0]


@posix
def test_a_run_that_is_alive_holds_its_folder(
    exam: Path, model: Path, whole: tuple[dict[str, bytes], list], tmp_path: Path
) -> None:
    """The first waits for a reader of its lines: 400 lines do not fit in a pipe of one page."""
    import fcntl

    out = tmp_path / "out"
    ours, theirs = os.pipe()
    if hasattr(fcntl, "F_SETPIPE_SZ"):
        fcntl.fcntl(theirs, fcntl.F_SETPIPE_SZ, 4096)
    first = subprocess.Popen(command(exam, model, out), stdout=theirs)
    os.close(theirs)
    with os.fdopen(ours, "rb") as lines:
        lines.readline()
        lines.readline()  # a frame: the folder is held
        for options in ((), ("--resume",), ("--overwrite",)):
            code, said, _ = run(exam, model, out, *options)
            assert code == 1
            assert "another run is writing to" in said[-1]["error"]["message"]
        rest = lines.readlines()
    assert first.wait(60) == 3
    assert len(rest) + 2 == len(whole[1])  # a slow reader misses nothing
    assert contents(out) == whole[0]


@posix
@pytest.mark.parametrize("limit", [200, 10_000, 40_000])
def test_a_full_disk_is_one_line_and_can_be_gone_on_from(
    limit: int, exam: Path, model: Path, whole: tuple[dict[str, bytes], list], tmp_path: Path
) -> None:
    """A limit on the size of a file stands for the disk: met in the journal's head, in its frames, in the files."""
    import resource

    out = tmp_path / "out"

    def shrink() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

    code, lines, err = run(exam, model, out, preexec_fn=shrink)
    assert (code, err) == (1, "")
    assert lines[-1]["error"]["code"] == "output"
    assert "cannot be written: file too large" in lines[-1]["error"]["message"]
    if limit == 200:
        assert not out.exists()
        assert "--resume" not in lines[-1]["error"]["hint"]
    else:
        assert [path.name for path in out.iterdir()] == [JOURNAL]
        assert lines[-1]["error"]["hint"].endswith("the same command with --resume goes on")
    assert run(exam, model, out, "--resume")[0] == 3
    assert contents(out) == whole[0]


def test_what_is_whole_is_not_read_again(
    exam: Path,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from capsule_edge.cli.main import main

    def call(*options: str) -> tuple[object, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(["run", str(exam), "--model", str(model), "--out", str(tmp_path / "out"), *options])
        return ended.value.code, *capsys.readouterr()

    assert call("--resume")[0] == 3  # nothing to resume: a run like any other
    before = contents(tmp_path / "out")

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("read again")

    monkeypatch.setattr(Reader, "read", refuse)
    code, out, err = call("--resume")
    assert (code, err) == (3, "")
    assert "an earlier run has read it already" in out
    code, out, _ = call("--resume", "--json")
    assert (code, json.loads(out)["recordings"][0]["study"]) == (3, json.loads(before["study.json"]))
    code, out, err = call("--resume", "--every", "2")
    assert (code, out) == (1, "")
    assert "holds a whole study of another recording, model, version or options" in err
    code, _, err = call("--resume", "--overwrite")
    assert code == 2
    assert contents(tmp_path / "out") == before


@pytest.mark.parametrize("gate", [None, 4.0])
def test_a_folder_of_pictures_is_gone_on_with_too(gate: float | None, model: Path, tmp_path: Path) -> None:
    pictures = tmp_path / "Bilder 写真"
    pictures.mkdir()
    for index in range(80):
        shown = cv2.cvtColor(view(index in range(30, 45), index // 3), cv2.COLOR_RGB2BGR)
        data = cv2.imencode(".png", shown)[1].tobytes()
        (pictures / f"frame {index}.png").write_bytes(data[:60] if index == 50 else data)
    with Reader.open(model) as reader:
        whole = reader.read(pictures, gate=gate)
        assert whole.ledger.corrupt == 1
        assert (whole.ledger.duplicate > 0) == (gate is not None)
        for stop in (20, 47, 70):

            def die(frame: FrameRecord, stop: int = stop) -> None:
                if frame.index == stop:
                    raise KeyboardInterrupt

            with Journal(tmp_path) as journal, pytest.raises(KeyboardInterrupt):
                reader.read(pictures, gate=gate, journal=journal, on_frame=die)
        with Journal(tmp_path) as journal:
            resumed = reader.read(pictures, gate=gate, journal=journal)
            assert journal.resumed >= 32
    assert study_document(resumed) == study_document(whole)
    assert frames_csv(resumed.frames, resumed.model) == frames_csv(whole.frames, whole.model)
    np.testing.assert_array_equal(resumed.colours, whole.colours)
