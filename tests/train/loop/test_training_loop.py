"""The training loop: losses, early stopping, and how workers share a batch and fail."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tf_keras", reason="needs the extra 'train'")

from capsule_edge.runtime.errors import Interrupted, UsageError
from capsule_edge.train.config import TrainConfig
from capsule_edge.train.data import TrainingFrames


@pytest.mark.parametrize(
    "text", ["no json", "{}", '{"cluster": {"worker": ["a:1"]}, "task": {"type": "ps", "index": 0}}',
             '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}']
)  # fmt: skip
def test_a_wrong_tf_config_is_named(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    from capsule_edge.train.loop import Workers

    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(UsageError, match=r"TF_CONFIG is .*allowed is a cluster of workers only"):
        Workers.from_environment()


@pytest.mark.quick
def test_a_batch_that_workers_cannot_share_is_named() -> None:
    from capsule_edge.train.loop import Workers

    three = SimpleNamespace(num_replicas_in_sync=3)
    assert Workers(three, 1, 3).part(TrainConfig(batch=12)) == (1, 2, 3)
    with pytest.raises(UsageError, match="batch is 16, allowed is a multiple of 3"):
        Workers(three, 1, 3).part(TrainConfig(batch=16))


def test_a_lost_worker_gives_one_line_that_says_how_to_continue() -> None:
    import tensorflow as tf

    from capsule_edge.train.loop import Workers

    lost = tf.errors.UnavailableError(None, None, "Collective ops is aborted by: Connection reset by peer")
    message = "worker 0 of 2 lost the others and stopped"
    with pytest.raises(Interrupted, match=message) as caught, Workers(None, 0, 2).together():
        raise lost
    assert "same command again" in caught.value.hint
    with pytest.raises(tf.errors.UnavailableError), Workers(None).together():
        raise lost


@pytest.mark.quick
def test_losses_equal_the_formulas_of_their_papers() -> None:
    import tensorflow as tf

    from capsule_edge.train.loop import losses
    from capsule_edge.train.loop.training_loop import keras_ops

    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (6, 4)).astype(np.float32)
    labels, offset = np.array([0, 1, 2, 3, 0, 1]), np.log(np.float32([0.4, 0.3, 0.2, 0.1]))
    config = TrainConfig(label_smoothing=0.1)
    target = losses.targets(labels, 4, config, keras_ops())
    assert np.asarray(target)[0] == pytest.approx([0.925, 0.025, 0.025, 0.025])
    plain = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(target, logits + offset))
    assert float(losses.label_loss(logits, target, offset, config, keras_ops())) == pytest.approx(
        float(plain), rel=1e-5
    )
    hard = np.eye(4, dtype=np.float32)[labels]
    p = np.exp(logits + offset)[np.arange(6), labels] / np.exp(logits + offset).sum(1)
    focal = losses.label_loss(logits, hard, offset, TrainConfig(focal=2.0), keras_ops())
    assert float(focal) == pytest.approx(float(np.mean(-((1 - p) ** 2) * np.log(p))), rel=1e-4)
    sure = tf.Variable([[80.0, -80.0]])
    with tf.GradientTape() as tape:
        loss = losses.label_loss(
            sure, np.float32([[1, 0]]), np.zeros(2, np.float32), TrainConfig(focal=0.5), keras_ops()
        )
    assert np.isfinite(tape.gradient(loss, sure).numpy()).all()
    mixed = losses.mix_neighbours(np.float32([[0], [10], [20]]), np.float32([0.5, 0, 0.1]), keras_ops())
    assert np.asarray(mixed).ravel() == pytest.approx([10, 10, 19])


def test_training_stops_early_with_the_best_weights(tmp_path: Path) -> None:
    import tensorflow as tf
    import tf_keras

    from capsule_edge.train.loop import CheckpointSettings
    from capsule_edge.train.loop.training_loop import TrainingLoop

    frames = TrainingFrames(np.zeros((8, 32, 32, 3), np.uint8), np.arange(8) % 2, np.full(8, "v"), ("a", "b"))
    model = tf_keras.Sequential([tf_keras.Input((32, 32, 3)), tf_keras.layers.GlobalAveragePooling2D(),
                                 tf_keras.layers.Dense(2)])  # fmt: skip
    config = TrainConfig(size=32, epochs=9, batch=4, patience=2, augmentation=0)
    scores, seen, lines = iter([0.2, 0.5, 0.5, 0.4, 0.9]), [], []

    def judge(values: list[np.ndarray]) -> dict[str, float]:
        seen.append(values)
        return {"held_out": next(scores)}

    def loss_of(pixels: Any, rows: Any, _: Any) -> Any:
        return tf.reduce_mean(tf.square(model(pixels) - tf.one_hot(rows % 2, 2)))

    for _ in range(2):  # the second finds training finished
        TrainingLoop(model, loss_of, config, average=0.5).run(
            frames, np.full(8, 1 / 8), CheckpointSettings(tmp_path / "c.npz"), lines.append, judge=judge
        )
        noted = [(line["epoch"], line["held_out"]) for line in lines if "epoch" in line]
        assert noted == [(0, 0.2), (1, 0.5), (2, 0.5), (3, 0.4)]
        assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), seen[1], strict=True))
    assert not np.array_equal(seen[1][0], seen[3][0])
