"""The serving model: its outputs keep the contract, and a model that cannot keep it is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("tf_keras", reason="needs the extra 'train'")

import tf_keras
from tiny_model import tiny_spec

from capsule_edge.export.contract import OUTPUTS
from capsule_edge.export.fp32 import ServingModel
from capsule_edge.export.run_folder import synthetic_frames
from capsule_edge.runtime.errors import ModelError

SIZE, TEMPERATURE = 32, 2.0


def small_model(pooling: Any) -> Any:
    """Build one convolution, a pooling and a dense layer of three labels."""
    layers = tf_keras.layers
    inputs = tf_keras.Input((SIZE, SIZE, 3))
    maps = layers.Conv2D(4, 3, 8, activation="relu", padding="same")(inputs)
    return tf_keras.Model(inputs, layers.Dense(3, bias_initializer="ones")(pooling()(maps)))


@pytest.mark.quick
def test_the_outputs_fit_each_other() -> None:
    tf_keras.utils.set_random_seed(0)
    model = small_model(tf_keras.layers.GlobalAveragePooling2D)
    serving = ServingModel(model, tiny_spec(size=SIZE, temperature=TEMPERATURE))
    frames = synthetic_frames(SIZE, count=3)
    answer = {name: value.numpy() for name, value in serving.serve(frames).items()}
    assert set(answer) == set(OUTPUTS)
    assert answer["features"].shape == (3, 4, 4, 3)
    expected = model((frames.astype(np.float32) - 128) / 128).numpy()
    # Sums of a few float32 products in another order.
    assert answer["logits"] == pytest.approx(expected, abs=1e-5)
    powers = np.exp(expected / TEMPERATURE)
    assert answer["probabilities"] == pytest.approx(powers / powers.sum(axis=1, keepdims=True), abs=1e-5)
    # The bias is 1 for every label.
    assert answer["features"].mean(axis=(1, 2)) == pytest.approx(expected - 1, abs=1e-5)


@pytest.mark.quick
@pytest.mark.parametrize(
    ("pooling", "size", "labels", "fault"),
    [
        ("GlobalMaxPooling2D", SIZE, ("normal", "a", "b"), "ends in GlobalMaxPooling2D and Dense"),
        ("GlobalAveragePooling2D", 64, ("normal", "a", "b"), "takes 32 x 32 pixels and has 3 labels"),
        ("GlobalAveragePooling2D", SIZE, ("normal", "a"), "its spec says 32 x 32 and 2"),
    ],
)
def test_a_model_that_does_not_fit_is_refused(
    pooling: str, size: int, labels: tuple[str, ...], fault: str
) -> None:
    model = small_model(getattr(tf_keras.layers, pooling))
    with pytest.raises(ModelError, match=fault):
        ServingModel(model, tiny_spec(labels, size))
