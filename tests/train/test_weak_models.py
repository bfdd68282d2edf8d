"""Small data: early checks, the lock, the validation curve, weak models, batch normalisation, the frozen backbone."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from training_samples import KEYS, SETTINGS, SIZE, WholeRun, setting_words

pytest.importorskip("tf_keras", reason="needs the extra 'train'")

from capsule_edge.cli.train import command
from capsule_edge.runtime.errors import CapsuleEdgeError, InputError, ModelError, OutputError, UsageError
from capsule_edge.runtime.results import lock_folder
from capsule_edge.train.config import TrainConfig
from capsule_edge.train.data import TrainingFrames
from capsule_edge.train.models import architectures, weights
from capsule_edge.train.weakness import majority_macro_f1, weak_points


def refused(data: Path, out: Path, *more: str, kind: type[CapsuleEdgeError] = InputError) -> str:
    words = ["--data", str(data), "--out", str(out), *setting_words(*SETTINGS), *more]
    with pytest.raises(kind) as caught:
        CliRunner().invoke(command, words, catch_exceptions=False)
    return str(caught.value)


def test_a_refused_command_leaves_no_run_and_prepares_no_frame(
    data: Path, start_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def prepared(*_: object, **__: object) -> None:
        raise AssertionError("a frame was prepared")

    monkeypatch.setattr(import_module("capsule_edge.train.run"), "cached_frames", prepared)
    odd, out = tmp_path / "odd.npz", tmp_path / "runs" / "new"
    weights.save(odd, {"conv_1/kernel": np.zeros((1, 1, 3, 16), np.float32)})
    assert "'resnet' is not known" in refused(data, out, "--set", "architecture=resnet", kind=UsageError)
    assert "multiple of 16" in refused(data, out, "--set", "size=33", kind=UsageError)
    assert "the weights lack" in refused(data, out, "--weights", str(odd))
    assert "none.npz holds no weights" in refused(data, out, "--weights", str(tmp_path / "none.npz"))
    assert "the weights lack" in refused(data, out, "--teacher", str(odd))
    assert "no out-of-fold answers" in refused(data, out, "--calibrate-on", str(odd))
    named = weights.load(start_weights) | {"conv_1/kernel": np.zeros((1, 1, 3, 16), np.float32)}
    weights.save(odd, named)
    assert "weight conv_1/kernel is (1, 1, 3, 16)" in refused(data, out, "--weights", str(odd))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["odd.npz"]


def test_an_error_while_frames_are_prepared_leaves_no_run(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OutputError("the disk is full")

    monkeypatch.setattr(import_module("capsule_edge.train.run"), "cached_frames", full)
    assert "full" in refused(data, tmp_path / "runs" / "new", kind=OutputError)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine").mkdir()
    refused(data, tmp_path / "mine", kind=OutputError)
    assert (tmp_path / "mine").is_dir()


def test_a_second_run_in_one_folder_is_refused(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    with lock_folder(out):
        assert "another run is writing to" in refused(data, out, kind=OutputError)
        assert [path.name for path in out.iterdir()] == [".capsule-edge.lock"]


def test_the_curve_has_the_validation_figure_and_the_majoritys(whole_run: WholeRun) -> None:
    with (whole_run.out / "curve.csv").open(encoding="utf-8", newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["part"] == "fp32"]
    for row in rows:
        assert 0 <= float(row["held_out"]) <= 1
        assert 0 < float(row["held_out_majority"]) < 0.5
    assert "validation macro-F1 " in whole_run.result.stderr
    assert "majority class " in whole_run.result.stderr


@pytest.mark.quick
def test_a_model_is_weak_where_it_is_no_better_than_the_majority_or_not_calibrated() -> None:
    labels = np.array([1] * 30 + [0] * 10 + [2] * 5)
    rng = np.random.default_rng(0)
    constant = np.tile(np.array([0, 1, 0], np.float32), (45, 1)) + rng.normal(0, 0.01, (45, 3)).astype("f4")
    (majority, *_) = weak_points(constant, labels, KEYS)
    assert "no better than the majority class" in majority
    assert f"answering {KEYS[1]} always gives {majority_macro_f1(labels):.3f}" in majority
    assert majority_macro_f1(labels) == pytest.approx(2 * (30 / 45) / (1 + 30 / 45) / 3)
    perfect = 9 * np.eye(3, dtype=np.float32)[labels]
    (bound,) = weak_points(perfect, labels, KEYS)
    assert bound.startswith("the temperature is 0.05, the bound")
    good = perfect.copy()
    good[:4] = good[-4:]
    assert weak_points(good, labels, KEYS) == ()


def test_a_weak_run_is_kept_ends_in_6_and_is_exported_only_if_accepted(
    data: Path, whole_run: WholeRun, tmp_path: Path
) -> None:
    from capsule_edge.cli.export import command as export

    out = tmp_path / "run"
    shutil.copytree(whole_run.out, out)
    document = json.loads((out / "run.json").read_text("utf-8"))
    document["weak"] = ["the model is no better than the majority class: as this test says"]
    (out / "run.json").write_text(json.dumps(document), encoding="utf-8")
    words = ["--data", str(data), "--out", str(out), *whole_run.words]
    result = CliRunner().invoke(command, words)
    assert result.exit_code == 6
    assert "warning: the model is no better than the majority class" in result.stderr
    assert "is ready" not in result.stdout
    result = CliRunner().invoke(command, [*words, "--json"])
    assert (result.exit_code, json.loads(result.stdout)["weak"]) == (6, document["weak"])
    with pytest.raises(ModelError, match="holds a weak model") as caught:
        CliRunner().invoke(export, [str(out), "--out", str(tmp_path / "files")], catch_exceptions=False)
    assert "--accept-weak" in str(caught.value.hint)
    words = [str(out), "--out", str(tmp_path / "files"), "--accept-weak"]
    assert CliRunner().invoke(export, words, catch_exceptions=False).exit_code == 0
    from capsule_edge.runtime.inference import open_model

    model = open_model(tmp_path / "files" / "model.int8.onnx")
    assert model.spec.provenance["weak"] == document["weak"]
    model.close()


def tiny_frames(count: int = 96) -> TrainingFrames:
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (count, SIZE, SIZE, 3), np.uint8)
    return TrainingFrames(pixels, np.arange(count) % 3, np.full(count, "v"), KEYS)


def test_statistics_of_batch_normalisation_are_the_mean_over_batches() -> None:
    import tf_keras

    from capsule_edge.train.data import scale
    from capsule_edge.train.loop.normalisation import re_estimate

    model, frames = architectures.build("plain_cnn", size=SIZE, labels=3, keras=tf_keras), tiny_frames()
    before = weights.collect(model)
    re_estimate(model, frames, np.arange(64), seed=3)
    after = weights.collect(model)
    changed = {name for name in after if not np.array_equal(after[name], before[name])}
    assert changed == {name for name in after if name.endswith(("moving_mean", "moving_variance"))}
    first = tf_keras.Model(model.input, model.get_layer("conv_1").output)(scale(frames.pixels[:64])).numpy()
    assert after["bn_1/moving_mean"] == pytest.approx(first.mean(axis=(0, 1, 2)), abs=1e-4)
    assert after["bn_1/moving_variance"] == pytest.approx(first.var(axis=(0, 1, 2)), rel=1e-2)
    assert model.get_layer("bn_1").momentum == 0.99


def test_a_pretrained_backbone_is_frozen_first_and_small_data_take_enough_steps(tmp_path: Path) -> None:
    import tf_keras

    from capsule_edge.train.loop import CheckpointSettings, keras_training

    frames, model = tiny_frames(), architectures.build("plain_cnn", size=SIZE, labels=3, keras=tf_keras)
    before, steps, lines = weights.collect(model), 3 * 4, []
    config = TrainConfig(
        architecture="plain_cnn", size=SIZE, epochs=2, batch=64, steps_per_class=4, frozen=1.0, ema=0.0
    )

    def note(line: dict[str, Any]) -> None:
        lines.append(line)

    keras_training.fit_fp32(
        model, frames, config, checkpoint=CheckpointSettings(tmp_path / "c.npz"), note=note, freeze=True
    )
    assert {line["of"] for line in lines if "step" in line} == {steps}
    learnt = {
        name for name, value in weights.collect(model).items() if not np.array_equal(value, before[name])
    }
    assert {name for name in learnt if "moving" not in name} == {"logits/kernel", "logits/bias"}


def test_phantoms_are_off_unless_asked_for() -> None:
    assert TrainConfig().phantom == 0


def test_tensorflow_keeps_its_log_to_itself() -> None:
    code = (
        "from capsule_edge.train.tensorflow_log import import_quietly; import_quietly(); import tensorflow as tf; "
        "tf.zeros(2) + 1; print(tf.__name__)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    assert (done.stdout, done.stderr) == ("tensorflow\n", "")
