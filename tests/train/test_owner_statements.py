"""Statements of a trained model on patients and licences: only those of its data and its owner."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from training_samples import COLOURS, KEYS, SETTINGS, SIZE, setting_words

from capsule_edge.cli.train import command
from capsule_edge.evaluation.datasets import Dataset, Sample
from capsule_edge.runtime.errors import InputError, UsageError
from capsule_edge.runtime.inference import HeldOutBy, ModelSpec
from capsule_edge.train.config import TrainConfig
from capsule_edge.train.data import TrainingFrames, held_out
from capsule_edge.train.model_spec import describe_model
from capsule_edge.train.run_inputs import OwnerStatement, RunInputs

OTHERS = ("kvasir", "cc-by", "cc by", "apache", "capsule-edge-standard")


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Class folders of three colours; no frame names a video."""
    rng = np.random.default_rng(0)
    for i in range(48):
        path = tmp_path / "clinic" / KEYS[i % 3] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        frame = np.clip(COLOURS[i % 3] + rng.normal(0, 40, (SIZE, SIZE, 3)), 0, 255).astype(np.uint8)
        cv2.imwrite(str(path), frame[:, :, ::-1])
    return tmp_path / "clinic"


def words(data: Path, out: Path, *more: str) -> list[str]:
    return ["--data", str(data), "--out", str(out), *setting_words(*SETTINGS, "qat_epochs=0"), *more]


def dataset_of(*videos: str | None, split: str | None = None) -> Dataset:
    samples = tuple(
        Sample(Path(f"{i}.png"), KEYS[i % 3], video_id=video, split=split) for i, video in enumerate(videos)
    )
    return Dataset(samples, KEYS, Path("clinic"), split)


def described(dataset: Dataset, by: HeldOutBy, monkeypatch: pytest.MonkeyPatch, **stated: str) -> ModelSpec:
    monkeypatch.setattr(import_module("capsule_edge.train.model_spec"), "hash_dataset", lambda _: "0" * 64)
    labels = np.arange(60) % 3
    logits = np.eye(3, dtype=np.float32)[labels] * 4
    return describe_model(
        OwnerStatement(**stated), TrainConfig(), dataset, held_out=by, logits=logits, labels=labels,
        unreadable=0, teachers=(),
    )  # fmt: skip


def test_data_that_name_no_video_are_refused_and_leave_no_run(folders: Path, tmp_path: Path) -> None:
    pytest.importorskip("tf_keras", reason="needs the extra 'train'")
    with pytest.raises(UsageError, match=r"none of the 48 frames of .*clinic names its video") as caught:
        CliRunner().invoke(command, words(folders, tmp_path / "run"), catch_exceptions=False)
    assert "--frames-leak-patients" in str(caught.value.hint)
    assert not (tmp_path / "run").exists()


def test_a_model_of_class_folders_says_that_patients_and_licences_are_not_known(
    folders: Path, tmp_path: Path
) -> None:
    pytest.importorskip("tf_keras", reason="needs the extra 'train'")
    from capsule_edge.export.run_folder import load_fp32

    out = tmp_path / "run"
    stated = ("--frames-leak-patients", "--name", "clinic-1", "--data-license", "ours alone")
    result = CliRunner().invoke(command, words(folders, out, *stated), catch_exceptions=False)
    assert "warning: 48 of 48 frames name no video, so their patients are unknown" in result.stderr
    _, spec = load_fp32(out)  # what every exported file carries
    assert spec.held_out == HeldOutBy("frame")
    assert spec.input.preprocessing == 2
    assert (spec.name, spec.version, spec.license) == ("clinic-1", "not stated", "not stated")
    assert spec.provenance["data_license"] == "ours alone"
    assert spec.intended_use.startswith("Not stated by the owner. Research use only. Not a medical device.")
    assert spec.provenance["videos"] is None
    text = (out / "run.json").read_text("utf-8").lower()
    assert "videos that" not in text
    assert not [name for name in OTHERS if name in text]
    held = json.loads((out / "held_out.json").read_text("utf-8"))
    assert 4 <= len(held["calibration"]) <= 12


@pytest.mark.quick
@pytest.mark.parametrize(
    ("by", "measured_on", "unknown"),
    [
        ("video", "60 frames of train videos that the answering model had not seen", ""),
        ("frame", "60 train frames held out one by one, patients unknown", "one by one"),
        ("unknown", "60 train frames of held-out videos, patients unknown", "some"),
    ],
)
def test_each_unit_has_its_own_claim(
    by: Any, measured_on: str, unknown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = described(dataset_of("a", "b", "c", split="train"), HeldOutBy(by), monkeypatch)
    assert {point.measured_on is None for point in spec.operating_points.values()} == {False}
    assert all(str(point.measured_on).startswith(measured_on) for point in spec.operating_points.values())
    assert spec.unknown_patients.startswith("patients unknown") == bool(unknown)
    assert unknown in spec.unknown_patients
    assert ModelSpec.from_json(spec.to_json()).held_out == HeldOutBy(by)


@pytest.mark.quick
def test_the_owner_states_everything_and_nothing_is_filled_in(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = {
        "name": "n",
        "version": "7",
        "license": "MIT",
        "data_license": "ODbL",
        "intended_use": "Teaching.",
    }
    spec = described(dataset_of("a"), HeldOutBy("video"), monkeypatch, **texts)
    assert (spec.name, spec.version, spec.license, spec.intended_use) == ("n", "7", "MIT", "Teaching.")
    assert spec.provenance["data_license"] == "ODbL"
    bare = described(dataset_of("a"), HeldOutBy("video"), monkeypatch).to_json().lower()
    assert not [name for name in OTHERS if name in bare]
    with pytest.raises(UsageError, match="data license of the model is an empty text"):
        RunInputs(OwnerStatement(data_license=" ")).check()


@pytest.mark.quick
def test_frames_without_a_video_are_held_out_only_if_asked_for() -> None:
    mixed = dataset_of(*(f"v{i % 8}" if i % 4 else None for i in range(96)))
    assert held_out.held_out_by(dataset_of("a", "b"), leak_patients=True) == HeldOutBy("video")
    assert held_out.held_out_by(mixed, leak_patients=False) == HeldOutBy("unknown")
    assert held_out.held_out_by(mixed, leak_patients=True) == HeldOutBy("frame")
    assert held_out.held_out_by(dataset_of(None, None), leak_patients=True) == HeldOutBy("frame")
    with pytest.raises(UsageError, match="--frames-leak-patients"):
        held_out.held_out_by(dataset_of(None, None), leak_patients=False)
    frames = TrainingFrames(
        np.zeros((96, 1, 1, 3), np.uint8),
        np.arange(96) % 3,
        np.array([sample.video_id or sample.file.stem for sample in mixed.samples]),
        KEYS,
    )
    named = held_out.named_videos(mixed)
    held = held_out.choose(frames, calibrate=True, stop=False, among=named)
    assert held.calibration
    assert set(held.calibration) <= named
    warning = held_out.warn_of_patients(mixed, HeldOutBy("unknown"))
    assert warning.startswith("24 of 96 frames name no video")
    assert held_out.warn_of_patients(dataset_of("a"), HeldOutBy("video")) == ""
    with pytest.raises(InputError, match="add videos"):
        held_out.choose(frames, calibrate=True, stop=False, among={"v1"})


@pytest.mark.quick
def test_the_sixths_most_like_all_frames_are_held_out() -> None:
    labels = np.array([0, 0, 1, 0, 0, 1, 0, 1, 1, 1, 1, 0])
    fold = np.array([0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 5, 5])
    # All frames are half and half, as are folds 2 and 5; fold 0 has two of three.
    assert held_out._most_alike(labels, fold) == [2, 5, 0, 1, 3, 4]
