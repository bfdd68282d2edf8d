"""A run that is killed, interrupted or out of disk space can be resumed, and its files get the same bytes.

What must die runs in a process of its own. Every other run is a call of ``main`` in this process.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import damage
import numpy as np
import pytest
from red_model import view, write_exam, write_red_model

from capsule_edge.cli.main import main
from capsule_edge.runtime import Reader
from capsule_edge.runtime.results import Journal, study_document
from capsule_edge.runtime.results.files import FILES, frames_csv
from capsule_edge.runtime.results.journal import JOURNAL
from capsule_edge.runtime.study import FrameRecord

# All but timing.json, which holds what differs from run to run.
SAME = ("frames.csv", "report.html", "study.json")
FRAMES = 300
# Linux: a pipe of one page holds some 18 lines, so a run is never far ahead of the reader of its lines. Elsewhere
# the size is ignored, and a pipe holds at most 64 KiB, fewer lines than a run prints.
PAGE = 4096

posix = pytest.mark.skipif(os.name != "posix", reason="needs signals of POSIX")
# Calls the command line in this process: options -> exit code, lines of stdout, stderr.
Run = Callable[..., tuple[int, list[dict], str]]
Whole = tuple[dict[str, bytes], list[dict]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_red_model(tmp_path_factory.mktemp("model") / "red.onnx")


@pytest.fixture(scope="module")
def exam(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 frames, some red, some damaged; folder and file have spaces and non-ASCII letters in their names."""
    folder = tmp_path_factory.mktemp("Köhler und Söhne 検査")
    red = {index for index in range(FRAMES) if index % 100 in range(40, 55)}
    whole = write_exam(folder / "whole.mp4", frames=FRAMES, red=red)
    return damage.flip(whole, folder / "Müller, 検査 1.mp4", range(130, 220, 15), seed=3, bits=8)


def arguments(exam: Path, model: Path, out: Path, *options: str) -> list[str]:
    return ["run", str(exam), "--model", str(model), "--out", str(out), "--jsonl", *options]


def start(words: list[str], *, code: str = "main()", **options: object) -> subprocess.Popen[bytes]:
    """Start the command line in a process; its lines come through a pipe of one page."""
    program = f"from capsule_edge.cli.main import main\n{code}"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "pipesize": PAGE}
    return subprocess.Popen([sys.executable, "-c", program, *words], **(pipes | options))  # type: ignore[call-overload]


def parse(lines: bytes | str) -> list[dict]:
    return [json.loads(line) for line in lines.splitlines()]


@pytest.fixture
def run(exam: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def call(out: Path, *options: str) -> tuple[int, list[dict], str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(arguments(exam, model, out, *options))
        assert isinstance(ended.value.code, int)
        shown, err = capsys.readouterr()
        return ended.value.code, parse(shown), err

    return call


@pytest.fixture(scope="module")
def whole(exam: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """The files and the lines of a run that nothing disturbed."""
    out = tmp_path_factory.mktemp("whole") / "out"
    process = start(arguments(exam, model, out))
    shown, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (3, b"")
    lines = parse(shown)
    ledger = lines[-1]["ledger"]
    assert ledger["corrupt"] > 0
    assert ledger["classified"] > 150
    assert len([line for line in lines if line["type"] == "event"]) >= 3
    return contents(out), lines


@pytest.fixture(scope="module")
def earlier_study(exam: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A result folder with the study of every 7th frame."""
    out = tmp_path_factory.mktemp("earlier") / "out"
    with pytest.raises(SystemExit):
        main([*arguments(exam, model, out, "--every", "7")])
    assert (out / "study.json").exists()
    return out


def contents(out: Path) -> dict[str, bytes]:
    assert sorted(path.name for path in out.iterdir()) == sorted(FILES)
    return {name: (out / name).read_bytes() for name in SAME}


def stop(process: subprocess.Popen[bytes], how: signal.Signals, after: int) -> tuple[bytes, bytes]:
    """Read ``after`` lines, then send the signal; return the rest of stdout, and stderr."""
    assert process.stdout is not None
    for _ in range(after):
        process.stdout.readline()
    process.send_signal(how)
    return process.communicate(timeout=60)


def without_out(lines: list[dict]) -> list[dict]:
    return [{key: value for key, value in line.items() if key != "out"} for line in lines]


@posix
@pytest.mark.parametrize("kills", [(1, 90, 180), (40, 150, FRAMES + 3)])
def test_a_run_killed_several_times_resumes_and_ends_in_the_same_bytes(
    kills: tuple[int, ...], exam: Path, model: Path, run: Run, whole: Whole, tmp_path: Path
) -> None:
    """Each kill comes after more lines than the one before; the last one when the files are being written."""
    out = tmp_path / "Ergebnis 結果"
    for after in kills:
        process = start(arguments(exam, model, out, "--resume"))
        stop(process, signal.SIGKILL, after)
        # Behind its last frame a run may end before the signal comes.
        assert process.returncode == -signal.SIGKILL or (after > FRAMES and process.returncode == 3)
        assert not (out / "study.json").exists() or contents(out) == whole[0]
    code, lines, err = run(out, "--resume")
    assert (code, err) == (3, "")
    assert contents(out) == whole[0]
    # The lines of a resumed run hold every frame again, also those answered before.
    assert without_out(lines) == without_out(whole[1])


DYING = """
import os, signal, sys
true, calls, at = os.replace, iter(range(99)), int(sys.argv.pop(1))
def replace(source, target):
    if next(calls) == at:
        os.kill(os.getpid(), signal.SIGKILL)
    true(source, target)
os.replace = replace
main()
"""


@posix
@pytest.mark.parametrize(("at", "earlier"), [(0, True), (3, True), (3, False), (7, True)])
def test_a_run_killed_while_it_moves_its_files_resumes(
    at: int,
    earlier: bool,
    exam: Path,
    model: Path,
    run: Run,
    whole: Whole,
    earlier_study: Path,
    tmp_path: Path,
) -> None:
    """Killed before the first move, amid the moves, and before the last, which is that of study.json.

    ``test_atomic`` kills at every move.
    """
    out = tmp_path / "out"
    if earlier:
        shutil.copytree(earlier_study, out)
    words = arguments(exam, model, out, *(["--overwrite"] if earlier else []))
    died = start([str(at), *words], code=DYING)
    died.communicate(timeout=120)
    assert died.returncode == -signal.SIGKILL
    # Before the first move the earlier study is whole; after it, no study.json is there.
    assert (out / "study.json").exists() == (earlier and at == 0)
    assert run(out, "--resume")[0] == 3
    assert contents(out) == whole[0]


@posix
def test_a_resumed_run_takes_the_answers_of_the_killed_run(
    exam: Path, model: Path, run: Run, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    stop(start(arguments(exam, model, out)), signal.SIGKILL, 250)
    assert run(out, "--resume")[0] == 3
    timing = json.loads((out / "timing.json").read_text("utf-8"))
    # Of the 250 lines one is the start and at most 5 are events, so frame 243 was answered. The frames behind the
    # last classified frame of the journal are answered again; no run of damaged frames here is longer than 100.
    assert 243 - 100 <= timing["resumed_frames"] < FRAMES


@posix
@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_keeps_its_journal_and_can_be_resumed(
    number: signal.Signals, exit_code: int, exam: Path, model: Path, run: Run, whole: Whole, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    # The lines that are left do not fit in the pipe, so the run has not ended when the signal comes.
    process = start(arguments(exam, model, out))
    rest, err = stop(process, number, 20)
    assert process.returncode == exit_code
    assert err == b""
    last = json.loads(rest.splitlines()[-1])
    assert (last["type"], last["error"]["code"], last["exit_code"]) == ("error", "interrupted", exit_code)
    assert "--resume" in last["error"]["hint"]
    assert [path.name for path in out.iterdir()] == [JOURNAL]
    code, lines, err_text = run(out)
    assert (code, err_text) == (1, "")
    assert "holds an interrupted run" in lines[-1]["error"]["message"]
    assert run(out, "--resume")[0] == 3
    assert contents(out) == whole[0]


@posix
def test_no_other_run_can_write_to_the_folder_of_a_living_run(
    exam: Path, model: Path, run: Run, whole: Whole, tmp_path: Path
) -> None:
    """The first run waits, because the reader of its lines does not read on."""
    out = tmp_path / "out"
    first = start(arguments(exam, model, out))
    assert first.stdout is not None
    first.stdout.readline()
    first.stdout.readline()  # a frame: the run holds the folder
    for options in ((), ("--resume",), ("--overwrite",)):
        code, said, _ = run(out, *options)
        assert code == 1
        assert "another run is writing to" in said[-1]["error"]["message"]
    rest = first.stdout.readlines()
    assert first.wait(60) == 3
    first.communicate()
    assert len(rest) + 2 == len(whole[1])  # a slow reader misses no line
    assert contents(out) == whole[0]


@posix
@pytest.mark.parametrize("limit", [200, 10_000, 40_000])
def test_a_run_on_a_full_disk_ends_in_one_error_and_can_be_resumed(
    limit: int, exam: Path, model: Path, run: Run, whole: Whole, tmp_path: Path
) -> None:
    """A limit on the size of a file stands for the disk: met in the journal's head, in its frames, in the files."""
    import resource

    out = tmp_path / "out"

    def shrink() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

    process = start(arguments(exam, model, out), preexec_fn=shrink)
    shown, err = process.communicate(timeout=120)
    error = parse(shown)[-1]["error"]
    assert (process.returncode, err) == (1, b"")
    assert error["code"] == "output"
    assert "cannot be written: file too large" in error["message"]
    if limit == 200:
        assert not out.exists()
        assert "--resume" not in error["hint"]
    else:
        assert [path.name for path in out.iterdir()] == [JOURNAL]
        assert error["hint"].endswith("the same command with --resume goes on")
    assert run(out, "--resume")[0] == 3
    assert contents(out) == whole[0]


def test_a_whole_study_is_not_read_again(
    exam: Path,
    model: Path,
    earlier_study: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def call(*options: str) -> tuple[object, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(["run", str(exam), "--model", str(model), "--out", str(tmp_path / "out"), *options])
        return ended.value.code, *capsys.readouterr()

    # There is nothing to resume, so this is a run like any other.
    assert call("--resume", "--every", "7")[0] == 3
    before = contents(tmp_path / "out")
    assert before == contents(earlier_study)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("read again")

    monkeypatch.setattr(Reader, "read", refuse)
    code, out, err = call("--resume", "--every", "7")
    assert (code, err) == (3, "")
    assert "an earlier run has read it already" in out
    code, out, _ = call("--resume", "--every", "7", "--json")
    assert (code, json.loads(out)["recordings"][0]["study"]) == (3, json.loads(before["study.json"]))
    code, out, err = call("--resume", "--every", "2")
    assert (code, out) == (1, "")
    assert "holds a whole study of another recording, model, version or options" in err
    code, _, err = call("--resume", "--overwrite")
    assert code == 2
    assert contents(tmp_path / "out") == before


@pytest.mark.parametrize("gate", [None, 4.0])
def test_the_reading_of_a_folder_of_pictures_can_be_resumed(
    gate: float | None, model: Path, tmp_path: Path
) -> None:
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
