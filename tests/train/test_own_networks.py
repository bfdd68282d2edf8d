"""``train.fit``: networks, losses and callbacks of the user's own, up to the exported file and its reading."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from training_samples import COLOURS, KEYS, SETTINGS, SIZE

pytest.importorskip("tf_keras", reason="needs the extra 'train'")

import tensorflow as tf
import tf_keras
from click.testing import CliRunner

from capsule_edge.cli.train import command
from capsule_edge.runtime.errors import CapsuleEdgeError, InputError, OutputError, UsageError
from capsule_edge.runtime.inference import open_model
from capsule_edge.train import TrainConfig, fit
from capsule_edge.train.models import NETWORK_FILE, weights

layers = tf_keras.layers
FIELDS = dict(setting.split("=") for setting in SETTINGS if not setting.startswith("architecture"))
CONFIG = {name: int(value) for name, value in FIELDS.items()} | {"qat_epochs": 1}
# A module as a user writes it, beside his data.
MODULE = """
import tf_keras
from tf_keras import layers

def build(size, labels):
    inputs = tf_keras.Input((size, size, 3))
    x = layers.Conv2D(8, 5, 2, padding="same", use_bias=False)(inputs)
    x = layers.ReLU(6.0)(layers.BatchNormalization()(x))
    x = layers.Conv2D(12, 3, 2, padding="same", activation="relu")(x)
    x = layers.GlobalAveragePooling2D()(x)
    return tf_keras.Model(inputs, layers.Dense(labels, name="logits")(x))
"""


def build(size: int, labels: int, *, end: Any = None, middle: Any = None) -> Any:
    """Return a small network; ``middle`` changes the features, ``end`` replaces pooling and head."""
    inputs = tf_keras.Input((size, size, 3))
    x = layers.Conv2D(8, 5, 2, padding="same", use_bias=False)(inputs)
    x = layers.ReLU(6.0)(layers.BatchNormalization(momentum=0.9)(x))
    x = layers.Conv2D(12, 3, 2, padding="same", activation="relu")(x)
    x = middle(x) if middle else x
    if end is not None:
        return tf_keras.Model(inputs, end(x))
    return tf_keras.Model(inputs, layers.Dense(labels, name="logits")(layers.GlobalAveragePooling2D()(x)))


class Watch(tf_keras.callbacks.Callback):
    """Write down every call, and end training after some epochs."""

    def __init__(self, epochs: int = 99) -> None:
        super().__init__()
        self.calls: list[str] = []
        self.epochs = epochs

    def on_train_begin(self, logs: Any = None) -> None:
        self.calls.append("begin")

    def on_train_end(self, logs: Any = None) -> None:
        self.calls.append("end")

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        assert np.isfinite(logs["loss"])
        self.calls.append(f"batch {batch}")

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        assert {"loss", "held_out"} <= set(logs)
        self.calls.append(f"epoch {epoch}")
        self.model.stop_training = epoch + 1 >= self.epochs


def squared(target: Any, logits: Any) -> Any:
    return tf.reduce_sum((target - tf.nn.softmax(logits)) ** 2, axis=1)


def colour(frames: int = 6) -> np.ndarray:
    """Return plain frames of the three classes' colours, uint8 (n, SIZE, SIZE, 3)."""
    return np.stack([np.full((SIZE, SIZE, 3), COLOURS[i % 3], np.uint8) for i in range(frames)])


def test_a_network_loss_and_callback_of_ones_own_reach_the_exported_file(data: Path, tmp_path: Path) -> None:
    from capsule_edge.export.bundle import export_run

    watch, losses = Watch(), []

    def loss(target: Any, logits: Any) -> Any:
        losses.append((tuple(target.shape), tuple(logits.shape)))
        return squared(target, logits)

    config = CONFIG | {"epochs": 5, "learning_rate": 0.01, "ema": 0.9}
    run = fit(data, tmp_path / "run", model=build, loss=loss, callbacks=[watch], config=config)
    # Plain colours leave no doubt, so there is nothing to calibrate on.
    assert all("temperature" in reason for reason in run.weak)
    assert losses[0][0][1:] == losses[0][1][1:] == (len(KEYS),)
    assert (watch.calls[0], watch.calls[-1]) == ("begin", "end")
    assert [call for call in watch.calls if call.startswith("epoch")] == [f"epoch {i}" for i in range(5)]
    given = json.loads((run.folder / "given.json").read_text("utf-8"))
    assert given["loss"].endswith("loss")
    assert len(given["network_sha256"]) == 64
    report = export_run(run.folder, tmp_path / "out", accept_weak=True)
    # Both files carry the user's network and tell the colours apart.
    for name in ("model.fp32.onnx", "model.int8.onnx"):
        answer = open_model(tmp_path / "out" / name).run(colour())
        assert answer.probabilities.argmax(axis=1).tolist() == [0, 1, 2] * 2, (name, report)
        assert answer.features is not None


def test_a_callback_ends_training_and_the_run_goes_on_as_ended(data: Path, tmp_path: Path) -> None:
    watch = Watch(epochs=1)
    fit(data, tmp_path / "run", model=build, callbacks=[watch], config=CONFIG)
    rows = (tmp_path / "run" / "curve.csv").read_text("utf-8").splitlines()
    assert sum("fp32" in row for row in rows) == 1
    # A finished run is kept.
    again = Watch()
    fit(data, tmp_path / "run", model=build, callbacks=[again], config=CONFIG)
    assert again.calls == []


def test_a_model_starts_from_its_own_weights(data: Path, tmp_path: Path) -> None:
    model = build(SIZE, len(KEYS))
    before = weights.collect(model)
    fit(data, tmp_path / "run", model=model, config=CONFIG | {"learning_rate": 1e-9, "weight_decay": 0.0})
    after = weights.load(tmp_path / "run" / "fp32.weights.npz")
    kernels = [name for name in before if name.endswith("kernel")]
    assert len(kernels) == 3
    assert all(np.allclose(before[name], after[name], atol=1e-5) for name in kernels)
    # The same network with other weights is another run.
    with pytest.raises(OutputError, match="network or loss"):
        fit(
            data, tmp_path / "run", model=build(SIZE, len(KEYS)),
            config=CONFIG | {"learning_rate": 1e-9, "weight_decay": 0.0},
        )  # fmt: skip


def test_the_command_takes_a_function_of_a_module_and_yaml(data: Path, tmp_path: Path) -> None:
    from capsule_edge.export.run_folder import load_run

    (tmp_path / "networks.py").write_text(MODULE, "utf-8")
    (tmp_path / "recipe.yaml").write_text(
        "".join(f"{name}: {value}\n" for name, value in CONFIG.items()), "utf-8"
    )
    words = [
        "train", "--data", str(data), "--out", "run", "--architecture", "networks:build", "--config", "recipe.yaml",
    ]  # fmt: skip
    code = "from capsule_edge.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode in (0, 6), done.stderr
    (tmp_path / "networks.py").unlink()
    run = load_run(tmp_path / "run")
    assert [layer.__class__.__name__ for layer in run.fp32.layers][1:3] == ["Conv2D", "BatchNormalization"]
    assert json.loads((tmp_path / "run" / "run.json").read_text())["architecture"] == "networks:build"


def dense_only(x: Any) -> Any:
    return layers.Dense(len(KEYS), name="logits")(layers.Flatten()(x))


def softmax(x: Any) -> Any:
    return layers.Dense(len(KEYS), "softmax", name="logits")(layers.GlobalAveragePooling2D()(x))


def other_name(x: Any) -> Any:
    return layers.Dense(len(KEYS), name="head")(layers.GlobalAveragePooling2D()(x))


def subclassed(size: int, labels: int) -> Any:
    class Own(tf_keras.Model):
        def call(self, x: Any) -> Any:
            return x

    return Own()


def nested(size: int, labels: int) -> Any:
    part = tf_keras.Sequential([layers.Conv2D(4, 3)], name="part")
    return build(size, labels, middle=part)


@pytest.mark.parametrize(
    ("network", "said"),
    [
        (lambda size, labels: build(size, labels, end=dense_only), "the layer before 'logits' is Flatten"),
        (lambda size, labels: build(size, labels, end=softmax), "without activation"),
        (lambda size, labels: build(size, labels, end=other_name), "ends in Dense 'head'"),
        (lambda size, labels: build(size, labels + 1), r"gives \(None, 4\), needed is \(None, 3\)"),
        (lambda size, labels: build(2 * size, labels), r"takes \(None, 64, 64, 3\)"),
        (lambda size, labels: build(size, labels, middle=layers.Lambda(lambda x: 2 * x, name="twice")), "twice|Lambda"),
        (lambda size, labels: build(size, labels, middle=layers.LayerNormalization(name="norm")), "norm"),
        (subclassed, "needed is a functional tf_keras model"),
        (nested, "holds the model 'part' as a layer"),
        (lambda size, labels: 7, "the network is a builtins.int"),
        (7, "the network is a builtins.int"),
        ("no_such_module:build", "the module 'no_such_module' cannot be imported"),
        ("json:no_such", "has no function 'no_such'"),
        ("no_such", "architecture 'no_such' is not known"),
    ],
)  # fmt: skip
def test_a_network_that_does_not_fit_is_refused_by_name(
    data: Path, tmp_path: Path, network: Any, said: str
) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        fit(data, tmp_path / "run", model=network, config=CONFIG)
    assert "\n" not in f"{caught.value}{caught.value.hint}"
    assert not (tmp_path / "run").exists()


def test_callbacks_that_do_not_fit_are_refused(data: Path, tmp_path: Path) -> None:
    rate = tf_keras.callbacks.LearningRateScheduler(lambda epoch: 0.1)
    with pytest.raises(UsageError, match="LearningRateScheduler sets the learning rate"):
        fit(data, tmp_path / "run", callbacks=[rate], config=CONFIG)
    with pytest.raises(UsageError, match=r"a callback is a builtins\.int"):
        fit(data, tmp_path / "run", callbacks=[3], config=CONFIG)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.yaml", "epochs: [1", "no YAML in line"),
        ("a.yml", "- epochs", "no names and values"),
        ("a.yaml", "no_such: 1", "'no_such' is not known"),
        ("a.json", "epochs: 1", "holds no training configuration"),
    ],
)
def test_a_configuration_that_cannot_be_read_is_one_line(
    tmp_path: Path, name: str, text: str, said: str
) -> None:
    (tmp_path / name).write_text(text, "utf-8")
    with pytest.raises(InputError, match=said) as caught:
        TrainConfig.read(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_damaged_network_file_is_one_line(data: Path, whole_run: Any, tmp_path: Path) -> None:
    import shutil

    from capsule_edge.export.run_folder import load_fp32

    for text in ("{", "[]", '{"class_name": "Nothing", "config": {}}'):
        shutil.copytree(whole_run.out, tmp_path / "run", dirs_exist_ok=True)
        (tmp_path / "run" / NETWORK_FILE).write_text(text, "utf-8")
        with pytest.raises(CapsuleEdgeError, match=NETWORK_FILE) as caught:
            load_fp32(tmp_path / "run")
        assert "\n" not in str(caught.value)


def test_the_command_refuses_a_module_that_fails_in_one_line(data: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(
        command, ["--data", str(data), "--out", str(tmp_path / "run"), "--architecture", "a.b:c"]
    )
    assert isinstance(result.exception, UsageError)
    assert not (tmp_path / "run").exists()
