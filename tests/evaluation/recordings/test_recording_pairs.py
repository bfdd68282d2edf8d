"""Results of runs are paired with the truths of a folder of recordings, and ``event_fit`` takes them from there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from event_samples import SMALL_GRID
from run_samples import MODEL, write_run, write_truth
from study_samples import SPEC
from tiny_model import write_tiny_model
from video_samples import recording

from capsule_edge.evaluation.datasets import video_mark
from capsule_edge.evaluation.recordings import event_fit, event_search
from capsule_edge.evaluation.recordings.recording_pairs import (
    RecordingPair,
    hash_of_recordings,
    pair_recordings,
    seen_in_training,
)
from capsule_edge.runtime.errors import CapsuleEdgeError, InputError, UsageError
from capsule_edge.runtime.inference import default_model
from capsule_edge.runtime.reader import Reader
from capsule_edge.runtime.results import write_study

Fit = Callable[..., dict[str, Any]]


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """The results of three recordings, and the folder with their truths: two of ``train``, one of ``val``."""
    runs, recordings = tmp_path / "runs", tmp_path / "recordings"
    runs.mkdir()
    recordings.mkdir()
    rows = ["file,split"]
    for name, split in (("a", "train"), ("b", "train"), ("c", "val")):
        write_run(runs / name)
        write_truth(recordings / f"{name}.truth.csv")
        (recordings / f"{name}.mp4").touch()
        rows.append(f"{name}.mp4,{split}")
    (recordings / "index.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return runs, recordings


@pytest.fixture
def fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Fit:
    """Call the command on a small grid and return its document."""
    monkeypatch.setattr(event_search, "GRID", SMALL_GRID)
    tiny = write_tiny_model(tmp_path / "m.onnx", labels=("normal", "ulcer"))

    def call(*words: object, model: Path = tiny) -> dict[str, Any]:
        line = ["event_fit", model, *words, "--out", tmp_path / "events.json"]
        monkeypatch.setattr("sys.argv", [str(word) for word in line])
        event_fit.main()
        document: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
        return document

    return call


def test_each_recording_of_a_split_has_its_result(folders: tuple[Path, Path]) -> None:
    runs, recordings = folders
    pairs = pair_recordings(runs, recordings)
    assert pairs == [RecordingPair(runs / n, recordings / f"{n}.truth.csv", n) for n in "ab"]
    assert [pair.video for pair in pair_recordings(runs, recordings, "all")] == ["a", "b", "c"]
    (runs / "b" / "frames.csv").unlink()
    with pytest.raises(InputError, match=r"b/frames\.csv is not there, the recording b\.mp4 of .* needs it"):
        pair_recordings(runs, recordings)
    with pytest.raises(UsageError, match="no recording of the split 'test'"):
        pair_recordings(runs, recordings, "test")


def test_the_command_fits_on_one_split_and_holds_another(folders: tuple[Path, Path], fit: Fit) -> None:
    runs, recordings = folders
    words = ("--folder", runs, "--recordings", recordings, "--hold-split", "val", "--out-of-fold")
    document = fit(*words, "--budgets", 1, 3)
    assert document["recordings"] == {"fitted": ["a", "b"], "held": ["c"]}
    assert [point["budget"] for point in document["curve"]["events"]] == [1.0, 3.0, 5.0]
    assert [row["recording"] for row in document["per_recording"]["left_out"]] == ["a", "b"]
    assert [row["hit"] for row in document["per_recording"]["held"]] == [1]
    assert document["measured"]["left_out"]["hit"] == document["curve"]["events"][2]["hit"] == 2
    point = document["operating_points"]["ulcer"]["measured_on"]
    assert point == (
        "single frames of a and b, each read by a model that had not seen its video, where the events were fitted"
    )


def test_recordings_of_one_video_have_no_curve(
    folders: tuple[Path, Path], fit: Fit, capsys: pytest.CaptureFixture[str]
) -> None:
    runs, recordings = folders
    (recordings / "index.csv").write_text("file,video_id\na.mp4,v\nb.mp4,v\n", encoding="utf-8")
    model_words = ("--folder", runs, "--recordings", recordings, "--plot", runs / "curve.svg")
    document = fit(*model_words)
    assert document["curve"] is None
    assert document["measured"]["left_out"] is None
    assert document["why_no_curve"] == "all recordings (2) are of the video v: it cannot be left out"
    assert document["measured"]["fitted"]["hit"] == 2
    assert not (runs / "curve.svg").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--hold-split", "train"), r"a\.truth\.csv is both fitted and held"),
        (("--plot", "curve.gif"), r"curve\.gif must end in \.png or \.svg"),
        (("--split", "other"), "no recording of the split 'other'"),
    ],
)
def test_contradictions_are_refused_in_one_line(
    words: tuple[str, ...], message: str, folders: tuple[Path, Path], fit: Fit
) -> None:
    with pytest.raises(CapsuleEdgeError, match=message):
        fit("--folder", folders[0], "--recordings", folders[1], *words)


def test_a_truth_that_does_not_fit_or_overlaps_is_refused(folders: tuple[Path, Path], fit: Fit) -> None:
    runs, recordings = folders
    truth = recordings / "b.truth.csv"
    whole = truth.read_text("utf-8")
    truth.write_text(whole + "60,60,30.0,Normal\n", encoding="utf-8")
    with pytest.raises(InputError, match="not the same recording"):
        fit("--folder", runs, "--recordings", recordings)
    truth.write_text(whole + "59,99,29.5,Normal\n", encoding="utf-8")
    with pytest.raises(InputError, match="lines 61 and 62 overlap"):
        fit("--folder", runs, "--recordings", recordings)


def test_half_of_a_pair_of_options_is_refused(folders: tuple[Path, Path], fit: Fit) -> None:
    for words in (("--folder", folders[0]), ("--recordings", folders[1]), ()):
        with pytest.raises(SystemExit) as stopped:
            fit(*words)
        assert stopped.value.code == 2


def test_a_model_that_read_its_training_video_is_named(folders: tuple[Path, Path]) -> None:
    runs, recordings = folders
    pairs = pair_recordings(runs, recordings)
    trained = replace(SPEC, provenance={"training_videos": [video_mark("b")]})
    assert seen_in_training(pairs, trained, MODEL) == ["b"]
    assert seen_in_training(pairs, trained, "0" * 64) == []
    assert seen_in_training(pairs, SPEC, MODEL) == []
    (runs / "b" / "study.json").unlink()
    assert seen_in_training(pairs, trained, MODEL) == []
    study = json.loads((runs / "a" / "study.json").read_text("utf-8"))
    study["warnings"] = [{"code": "other"}, {"code": "seen_in_training", "message": "made up"}]
    (runs / "a" / "study.json").write_text(json.dumps(study), encoding="utf-8")
    assert seen_in_training(pairs, SPEC, None) == ["a"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"model": 3, "source": {"sha256": 5}, "warnings": null}'])
def test_a_study_that_says_nothing_is_passed_over(text: str, folders: tuple[Path, Path]) -> None:
    pairs = pair_recordings(*folders)
    (folders[0] / "a" / "study.json").write_text(text, encoding="utf-8")
    assert hash_of_recordings(pairs) == []
    assert seen_in_training(pairs, SPEC, MODEL) == []


def test_the_recordings_of_a_fit_are_named_in_the_training(folders: tuple[Path, Path], fit: Fit) -> None:
    runs, recordings = folders
    for name, digest in (("a", "a" * 64), ("b", "b" * 64), ("c", "c" * 64)):
        path = runs / name / "study.json"
        study = json.loads(path.read_text("utf-8"))
        study["source"]["sha256"] = digest
        path.write_text(json.dumps(study), encoding="utf-8")
    points = {"ulcer": {"threshold": 0.95}}
    spec = SPEC.to_dict() | {"labels": SPEC.to_dict()["labels"][:2], "operating_points": points}
    spec["provenance"] = {"fitted_recordings": ["e" * 64]}
    training = runs.parent / "training"
    training.mkdir()
    (training / "run.json").write_text(json.dumps({"spec": spec}), encoding="utf-8")
    words = ("--folder", runs, "--recordings", recordings, "--hold-split", "val", "--into", training)
    assert fit(*words)["fitted_recordings"] == ["a" * 64, "b" * 64]
    written = json.loads((training / "run.json").read_text("utf-8"))["spec"]
    assert written["provenance"]["fitted_recordings"] == ["a" * 64, "b" * 64, "e" * 64]
    assert written["operating_points"]["ulcer"]["threshold"] < 0.8


def test_out_of_fold_is_not_believed_of_a_training_video(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match="that read b was trained on the same video, but --out-of-fold"):
        event_fit._warn_of_training(["b"], stated=True)
    event_fit._warn_of_training(["b"], stated=False)
    assert capsys.readouterr().err.startswith("warning: the model that read b was trained on the same video")


def test_real_recordings_are_read_paired_and_fitted(tmp_path: Path, fit: Fit) -> None:
    # The two shortest recordings with a finding: 11 frames with an angioectasia, 127 frames with an ulcer.
    names = ("ad91cf7ca91440aa", "2fc3db471f9d44c0")
    root = recording(names[0]).parent
    (tmp_path / "videos").mkdir()
    with Reader.open(default_model("small")) as reader:
        for name in names:
            for suffix in (".mp4", ".truth.csv"):
                shutil.copy(root / (name + suffix), tmp_path / "videos")
            (tmp_path / "read" / name).mkdir(parents=True)
            write_study(reader.read(root / f"{name}.mp4"), tmp_path / "read" / name, timing={})
    model = default_model("small")
    document = fit("--folder", tmp_path / "read", "--recordings", tmp_path / "videos", model=model)
    assert document["recordings"]["fitted"] == sorted(names)
    assert document["measured"]["fitted"]["findings"] == document["curve"]["events"][0]["findings"] == 2
    assert document["curve"]["events"][0]["frames"] == 138
    # The model was trained on one of the two videos, and its file says so.
    assert document["seen_in_training"] == [names[0]]
    assert len(document["fitted_recordings"]) == 2
