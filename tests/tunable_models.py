"""Write small Keras classifiers for fine-tuning, trained on the frames of ``write_colours``. A program.

    python tunable_models.py keras FRAMES DIR
    python tunable_models.py tf_keras FRAMES DIR
    python tunable_models.py demo FRAMES DIR

The last form writes ``net.keras`` of Keras 3 and ``labels.yaml`` for the frames of ``capsule-edge demo-data``.
One process never loads both versions of Keras. Beside each model lies ``NAME.npy``: its answers to ``frames()``.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from framework_models import LABELS, SIZE, answerable, frames


def uneven(keras: Any, pictures: np.ndarray, labels: np.ndarray) -> Any:
    """A nested depthwise network, trained for a moment, in which all channels but one then get a scale of 1/48.

    A ReLU passes a factor on, so the depthwise kernel takes it back and the answers stay. In 8 bits such a channel has
    some five of the 256 levels.
    """
    layers = keras.layers
    inside = keras.Input((SIZE, SIZE, 3), name="inside")
    x = layers.Conv2D(12, 3, 2, padding="same", use_bias=False)(inside)
    first = layers.BatchNormalization(momentum=0.5, name="first_norm")
    depthwise = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name="depthwise")
    x = layers.BatchNormalization(momentum=0.5)(depthwise(layers.ReLU()(first(x))))
    x = layers.Conv2D(16, 1, activation="relu")(layers.ReLU()(x))
    backbone = keras.Model(inside, x, name="backbone")
    inputs = keras.Input((SIZE, SIZE, 3), name="picture")
    x = backbone(layers.Rescaling(1 / 127.5, -1.0)(inputs))
    x = layers.Dropout(0.1)(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, layers.Dense(LABELS, activation="softmax", name="scores")(x))
    model.compile(keras.optimizers.Adam(0.003), "sparse_categorical_crossentropy")
    model.fit(pictures, labels, batch_size=32, epochs=4, verbose=0)
    factors = np.full(12, 1 / 48, np.float32)
    factors[0] = 1
    gamma, beta, mean, variance = first.get_weights()
    first.set_weights([gamma * factors, beta * factors, mean, variance])
    depthwise.set_weights([depthwise.get_weights()[0] / factors[:, None]])
    return model


def nested(keras: Any) -> Any:
    """Augmentation, scaling and two nested models with every kind of layer that has a twin."""
    layers = keras.layers
    inputs = keras.Input((SIZE, SIZE, 3), name="inside")
    x = layers.ZeroPadding2D(1)(inputs)
    x = layers.ReLU(6.0)(layers.BatchNormalization()(layers.Conv2D(8, 3, 2)(x)))
    y = layers.SeparableConv2D(8, 3, padding="same", activation="relu")(layers.MaxPooling2D(3, 1, "same")(x))
    x = layers.Activation("relu")(layers.Add()([x, y]))
    x = layers.Concatenate()([x, layers.BatchNormalization(name="alone")(x)])
    inner = keras.Model(inputs, layers.AveragePooling2D(2)(x), name="inner")
    outer = keras.Sequential([keras.Input((SIZE, SIZE, 3)), inner, layers.Conv2D(8, 3)], name="outer")
    picture = keras.Input((SIZE, SIZE, 3), name="picture")
    x = layers.Rescaling(1 / 255)(layers.RandomFlip()(picture))
    x = layers.Normalization(mean=[0.5, 0.4, 0.3], variance=[0.04, 0.05, 0.06])(x)
    x = layers.Flatten()(layers.Reshape((6, 6, 8))(outer(x)))
    x = layers.Dense(LABELS)(layers.Dense(8, activation="relu")(x))
    model = keras.Model(picture, layers.Activation("softmax")(x))
    rng = np.random.default_rng(5)
    for layer in (*inner.layers, *outer.layers):
        if isinstance(layer, layers.BatchNormalization):
            layer.set_weights([np.abs(rng.normal(1, 0.3, w.shape)) for w in layer.get_weights()])
    return model


def swish_inside(keras: Any) -> Any:
    """A swish in a nested model, which has no twin."""
    layers = keras.layers
    inputs = keras.Input((SIZE, SIZE, 3))
    inner = keras.Model(
        inputs, layers.Conv2D(4, 3, activation="swish", name="smooth")(inputs), name="backbone"
    )
    return keras.Model(inputs, layers.Dense(LABELS)(layers.GlobalAveragePooling2D()(inner(inputs))))


def twice(keras: Any) -> Any:
    """A convolution that is used twice."""
    layers = keras.layers
    inputs = keras.Input((SIZE, SIZE, 3))
    shared = layers.Conv2D(3, 3, padding="same", name="shared")
    x = layers.GlobalAveragePooling2D()(shared(shared(inputs)))
    return keras.Model(inputs, layers.Dense(LABELS)(x))


def write_demo(data: Path, folder: Path) -> None:
    """Write a small network for the demo data, fitted to their split ``train`` for a moment, and its labels."""
    import keras

    from capsule_edge.evaluation.classification import load_frames
    from capsule_edge.evaluation.datasets import load_dataset
    from capsule_edge.runtime.inference import InputSpec

    keras.utils.set_random_seed(3)
    dataset, pictures = load_frames(
        load_dataset(data, split="train"), InputSpec(SIZE, crop="none", mask="none", preprocessing=2)
    )
    layers = keras.layers
    inputs = keras.Input((SIZE, SIZE, 3), name="picture")
    x = layers.Rescaling(1 / 255)(inputs)
    for channels in (8, 16):
        x = layers.Conv2D(channels, 3, 2, padding="same", activation="relu")(x)
    x = layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, layers.Dense(len(dataset.labels), activation="softmax")(x))
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    labels = np.array([dataset.labels.index(sample.label) for sample in dataset.samples])
    model.fit(pictures.astype(np.float32), labels, batch_size=32, epochs=8, verbose=0)
    model.save(folder / "net.keras")
    (folder / "labels.yaml").write_text("".join(f"- {label}\n" for label in dataset.labels), "utf-8")


def main(framework: str, data: Path, folder: Path) -> None:
    """Write the models of one version of Keras."""
    import importlib

    from foreign_models import scaled_frames

    keras = importlib.import_module(framework)
    keras.utils.set_random_seed(3)
    folder.mkdir(parents=True, exist_ok=True)
    shares, labels = scaled_frames(data, SIZE, "0..1")
    suffix = ".keras" if framework == "keras" else ".h5"
    if framework == "keras":
        models = {"nested": nested(keras), "swish_inside": swish_inside(keras), "twice": twice(keras)}
    else:
        models = {"uneven": uneven(keras, shares.transpose(0, 2, 3, 1) * 255, labels)}
    for name, model in models.items():
        answerable(name, model, folder / f"{name}{suffix}", frames())


if __name__ == "__main__":
    os.environ["KERAS_BACKEND"] = "tensorflow"
    if sys.argv[1] == "demo":
        write_demo(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
