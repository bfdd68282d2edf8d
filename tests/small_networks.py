"""Small networks with depthwise layers and residual sums, and with branches beside each convolution."""

from __future__ import annotations

from typing import Any

import numpy as np
import tf_keras
from quantised_models import KEYS, pixels_of

from capsule_edge.export.run_folder import synthetic_frames
from capsule_edge.train.models import architectures

layers = tf_keras.layers


def residual_model(size: int = 64) -> Any:
    """Return a seeded network of three inverted residual blocks, two of which end in a sum.

    Its batch normalisations know their own statistics, and its logits are of some size, as in ``fp32_model``.
    """
    tf_keras.utils.set_random_seed(1)
    inputs = tf_keras.Input((size, size, 3), name="pixels")
    x = _normalised(layers.Conv2D(16, 3, 2, padding="same", use_bias=False, name="stem")(inputs), "stem")
    x = layers.ReLU(6.0, name="stem_relu")(x)
    x = _block(x, "first", channels=8, stride=2)
    x = _block(x, "second", channels=8, stride=1)
    x = _block(x, "third", channels=8, stride=1)
    pooled = layers.GlobalAveragePooling2D(name="pool")(x)
    model = tf_keras.Model(inputs, layers.Dense(len(KEYS), name="logits")(pooled), name="residual")
    _settle(model, size)
    return model


def _normalised(x: Any, name: str) -> Any:
    return layers.BatchNormalization(epsilon=1e-3, momentum=0.0, name=f"{name}_bn")(x)


def _block(x: Any, name: str, *, channels: int, stride: int) -> Any:
    before = x
    x = layers.Conv2D(48, 1, use_bias=False, name=f"{name}_expand")(x)
    x = layers.ReLU(6.0, name=f"{name}_expand_relu")(_normalised(x, f"{name}_expand"))
    x = layers.DepthwiseConv2D(3, stride, padding="same", use_bias=False, name=f"{name}_depthwise")(x)
    x = layers.ReLU(6.0, name=f"{name}_depthwise_relu")(_normalised(x, f"{name}_depthwise"))
    x = _normalised(layers.Conv2D(channels, 1, use_bias=False, name=f"{name}_project")(x), f"{name}_project")
    return layers.Add(name=f"{name}_add")([before, x]) if stride == 1 else x


def _settle(model: Any, size: int) -> None:
    rng = np.random.default_rng(3)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.beta.assign(rng.normal(0.3, 0.2, layer.beta.shape))
    model(pixels_of(synthetic_frames(size, seed=1)), training=True)
    dense = model.layers[-1]
    dense.kernel.assign(dense.kernel * 8)
    dense.bias.assign(np.linspace(-1, 1, len(KEYS)))


def branched_model(size: int = 32) -> Any:
    """Return the small student in its training form; every normalisation has statistics of its own."""
    model = architectures.build("rep_cnn", size=size, labels=len(KEYS), keras=tf_keras, branched=True)
    rng = np.random.default_rng(5)
    for layer in model.layers:
        if isinstance(layer, tf_keras.layers.BatchNormalization):
            for variable in layer.weights:
                scale = "gamma" in variable.name or "variance" in variable.name
                drawn = rng.uniform(0.5, 1.5, variable.shape) if scale else rng.normal(0, 0.3, variable.shape)
                variable.assign(drawn)
    return model
