"""``evaluation.recordings`` and ``event_fit`` on good and faulty files: figures, or an error of one line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from cli_calls import Called
from paths import ROOT
from run_samples import FRAMES, LABELS, MODEL, write_run, write_truth
from tiny_model import write_tiny_model

from capsule_edge.evaluation._module import run_module
from capsule_edge.evaluation.datasets import video_mark
from capsule_edge.evaluation.recordings import event_fit, recording_scores
from capsule_edge.evaluation.recordings.recording_scores import compare_with_truth, read_answers, summarise
from capsule_edge.evaluation.recordings.recordings_report import write_recordings
from capsule_edge.runtime.errors import InputError, OutputError
from capsule_edge.runtime.inference import BACKENDS, open_model

Call = Callable[..., Called]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run")


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Run ``python -m capsule_edge.evaluation.recordings`` in this process."""

    def run(*arguments: object) -> Called:
        capsys.readouterr()
        monkeypatch.setattr("sys.argv", ["recordings", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            run_module(recording_scores.main)
        assert isinstance(ended.value.code, int)
        return Called(ended.value.code, *capsys.readouterr())

    return run


@pytest.mark.parametrize(
    ("header", "times"),
    [("index,label", True), ("index,frame_number,label", True), ("index,frame_number,time_s,label", False)],
)
def test_a_truth_without_times_takes_the_times_of_the_run(
    run: Path, tmp_path: Path, call: Call, header: str, times: bool
) -> None:
    truth = write_truth(tmp_path / "truth.csv", header=header, times=times)
    document = compare_with_truth(run, truth)
    assert document["largest_time_difference_s"] is None
    assert [(s.label, s.start_s, s.end_s) for s in document["spans"]["true"]] == [("ulcer", 10.0, 15.0)]
    assert summarise([document])["hit"] == 1
    done = call(run, truth)
    assert (done.code, done.err) == (0, "")
    assert "the truth gives no times" in done.out
    assert json.loads(done.out.splitlines()[-1])["recordings"][0]["largest_time_difference_s"] is None
    spec = open_model(write_tiny_model(tmp_path / "m.onnx", labels=LABELS)).spec
    assert len(read_answers(run, truth, spec).labels) == FRAMES


TRUTHS = {
    "label": (lambda text: text.replace("time_s,label", "time_s,finding"), "lacks the column 'label'"),
    "index": (lambda text: text.replace("index,", "row,"), "lacks the column 'index'"),
    "empty": (lambda text: "", "lacks the column 'index'"),
    "no label": (lambda text: text.replace("\n3,3,1.5,Normal", "\n3,3,1.5,"), "line 5 has no label"),
    "unknown": (lambda text: text.replace("Ulcer", "Ulzer"), r"the labels \['ulzer'\], the model knows"),
    "short": (lambda text: text[: text.index("\n40,")], "not the same recording"),
    "bytes": (lambda text: text.replace("Ulcer", "Ulc\xe8re").encode("latin-1"), "is not UTF-8"),
}  # fmt: skip


@pytest.mark.parametrize("fault", TRUTHS)
def test_a_faulty_truth_is_refused_in_one_line(run: Path, tmp_path: Path, call: Call, fault: str) -> None:
    change, said = TRUTHS[fault]
    truth = write_truth(tmp_path / "truth.csv")
    text = change(truth.read_text("utf-8"))
    truth.write_bytes(text if isinstance(text, bytes) else text.encode())
    spec = open_model(write_tiny_model(tmp_path / "m.onnx", labels=LABELS)).spec
    with pytest.raises(InputError, match=said):
        read_answers(run, truth, spec)
    if fault == "unknown":
        assert compare_with_truth(run, truth)["unknown_labels"] == ["ulzer"]
        done = call(run, truth)
        assert done.code == 0
        assert done.err.startswith("warning: the model of exam.mp4 has no label ulzer: such findings")
        return
    with pytest.raises(InputError, match=said):
        compare_with_truth(run, truth)


def test_times_that_are_not_numbers_are_named(run: Path, tmp_path: Path, call: Call) -> None:
    truth = write_truth(tmp_path / "truth.csv")
    truth.write_text(truth.read_text("utf-8").replace("\n3,3,1.5,", "\n3,3,1:30,"), encoding="utf-8")
    with pytest.raises(InputError, match=r"truth\.csv has a time_s that is not a number.*1:30"):
        compare_with_truth(run, truth)
    done = call(run, truth)
    assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)
    assert "Traceback" not in done.err


RUNS = {
    "frames.csv": {
        "no label": (lambda text: text.replace(",label,", ",found,"), "lacks the column 'label'"),
        "no times": (lambda text: text.replace("time_s", "t"), "lacks the column 'time_s'"),
        "no normal": (lambda text: text.replace("p_normal", "p_ulcer2"), "lacks the column 'p_normal'"),
        "words": (lambda text: text.replace(",0.9,", ",high,", 1), "p_normal that is not a number"),
        "half": (lambda text: text.replace(",0.9,", ",,", 1), "a label without its probabilities"),
    },
    "study.json": {
        "no source": (lambda text: text.replace("source", "file"), "has no readable study.json"),
        "no events": (lambda text: text.replace("events", "event"), "has no readable study.json"),
        "no peak": (lambda text: text.replace("peak_p", "p"), "has no readable study.json"),
        "list": (lambda text: "[]", "has no readable study.json"),
        "cut": (lambda text: text[:40], "has no readable study.json"),
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "fault"), [(name, fault) for name, faults in RUNS.items() for fault in faults]
)
def test_a_faulty_run_folder_is_refused_in_one_line(run: Path, tmp_path: Path, name: str, fault: str) -> None:
    change, said = RUNS[name][fault]
    truth = write_truth(tmp_path / "truth.csv")
    (run / name).write_text(change((run / name).read_text("utf-8")), encoding="utf-8")
    with pytest.raises(InputError, match=said):
        compare_with_truth(run, truth)


@pytest.mark.parametrize(("video", "seen"), [("exam", True), ("exam2", False), (None, None)])
def test_a_recording_of_a_training_video_is_reported(
    run: Path, tmp_path: Path, call: Call, video: str | None, seen: bool | None
) -> None:
    provenance = {} if video is None else {"training_videos": [video_mark(video)]}
    model = write_tiny_model(tmp_path / "m.onnx", labels=LABELS, provenance=provenance)
    opened = open_model(model)
    study = run / "study.json"
    study.write_text(study.read_text("utf-8").replace(MODEL, opened.sha256), encoding="utf-8")
    truth = write_truth(tmp_path / "truth.csv")
    assert compare_with_truth(run, truth, {opened.sha256: opened.spec})["seen_in_training"] is seen
    assert compare_with_truth(run, truth)["seen_in_training"] is None
    done = call(run, truth, "--model", model)
    assert json.loads(done.out.splitlines()[-1])["recordings"][0]["seen_in_training"] is seen
    assert ("warning: exam.mp4 was in the training" in done.err) == (seen is True)
    assert ("may have been" in done.out) == (seen is None)


@pytest.mark.skipif(not BACKENDS["litert"].installed, reason="reads a TFLite file")
def test_a_model_of_any_format_names_its_training_videos(run: Path, tmp_path: Path, call: Call) -> None:
    model = ROOT / "models/capsule-edge-small.int8.tflite"
    study = run / "study.json"
    text = study.read_text("utf-8").replace(MODEL, open_model(model, backend="litert").sha256)
    truth = write_truth(tmp_path / "truth.csv")
    # The first is of `train`, the other of `val`.
    for video, seen in (("64440803f87b4843", True), ("bca26705313a4644", False)):
        study.write_text(text.replace("exam.mp4", f"{video}.mp4"), encoding="utf-8")
        done = call(run, truth, "--model", model)
        assert done.code == 0, done.err
        assert json.loads(done.out.splitlines()[-1])["recordings"][0]["seen_in_training"] is seen


def test_a_closed_pipe_and_ctrl_c_print_no_traceback(run: Path, tmp_path: Path) -> None:
    truth = write_truth(tmp_path / "truth.csv")
    read, write = os.pipe()
    os.close(read)
    words = [sys.executable, "-m", recording_scores.__name__, str(run), str(truth)]
    done = subprocess.run(words, stdout=write, stderr=subprocess.PIPE, text=True, timeout=120, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (1, "")

    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        with pytest.raises(SystemExit) as ended:
            run_module(partial(signal.raise_signal, number))
        assert ended.value.code == code


def test_a_report_is_replaced_only_with_overwrite(run: Path, tmp_path: Path, call: Call) -> None:
    truth, out = write_truth(tmp_path / "truth.csv"), tmp_path / "out"
    assert call(run, truth, "--out", out).code == 0
    (out / "recordings.json").write_text("mine")
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    done = call(run, truth, "--out", out)
    assert (done.code, done.out) == (1, "")
    assert (
        done.err
        == f"error: {out} already holds recordings.json (choose another --out, or pass --overwrite)\n"
    )
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert call(run, truth, "--out", out, "--overwrite").code == 0
    assert json.loads((out / "recordings.json").read_text())["events"]["hit"] == 1


def test_a_report_that_cannot_be_replaced_is_unchanged(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = compare_with_truth(run, write_truth(tmp_path / "truth.csv"))
    out, move = tmp_path / "out", os.replace
    write_recordings([document], summarise([document]), out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    def refuse(source: Path, target: Path) -> None:
        if Path(target).name == "reading.png" and ".earlier" not in Path(source).name:
            raise PermissionError(13, "Permission denied")
        move(source, target)

    monkeypatch.setattr("os.replace", refuse)
    changed = {**document, "recording": "another.mp4"}
    with pytest.raises(OutputError, match=r"reading\.png cannot be written: permission denied"):
        write_recordings([changed], summarise([changed]), out, overwrite=True)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_a_failed_fit_writes_no_file(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grid = dict.fromkeys(("smoothing_s", "max_gap_s", "min_frames", "release"), (1,)) | {"merge_s": (0.0,)}
    monkeypatch.setattr("capsule_edge.evaluation.recordings.event_search.GRID", grid)
    model, truth = write_tiny_model(tmp_path / "m.onnx", labels=LABELS), write_truth(tmp_path / "truth.csv")

    def fit(*more: object) -> None:
        words = ["event_fit", model, "--fit", run, truth, *more]
        monkeypatch.setattr("sys.argv", [str(word) for word in words])
        event_fit.main()

    (tmp_path / "no run").mkdir()
    with pytest.raises(InputError, match="has no spec of a training"):
        fit("--out", tmp_path / "events.json", "--into", tmp_path / "no run")
    assert not (tmp_path / "events.json").exists()  # the folder is checked before the search
    (tmp_path / "a file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        fit("--out", tmp_path / "a file" / "events.json")
    fit("--out", tmp_path / "new" / "events.json")
    assert json.loads((tmp_path / "new" / "events.json").read_text())["measured"]["fitted"]["hit"] == 1
    for option, value in (("--budget", "nan"), ("--budget", "-1"), ("--capture-fps", "0")):
        with pytest.raises(SystemExit) as stopped:
            fit("--out", tmp_path / "events.json", option, value)
        assert stopped.value.code == 2
    unmarked = tmp_path / "unmarked.csv"
    unmarked.write_text(truth.read_text().replace(",label", ""))
    with pytest.raises(InputError, match="lacks the column 'label'"):
        fit("--out", tmp_path / "events.json", "--hold", run, unmarked)
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["events.json"]


def test_a_frame_without_an_answer_is_not_counted(run: Path, tmp_path: Path) -> None:
    document = compare_with_truth(run, write_truth(tmp_path / "truth.csv"))
    assert (document["frames"], document["answered"]) == (FRAMES, FRAMES - 1)
    assert np.isnan(document["reading"].abnormal).tolist() == [False] * (FRAMES - 1) + [True]
    assert document["largest_time_difference_s"] == 0.0
