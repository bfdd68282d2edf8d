"""Write small classifiers with Keras 3 or with tf_keras, as users do. A program: one process never loads both.

    python framework_models.py keras DIR
    python framework_models.py tf_keras DIR

Beside each model that can be adopted lies ``NAME.npy``: its framework's answers to ``frames()``, levels of 0 to 255.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

SIZE, LABELS = 32, 3


def frames(count: int = 5, size: int = SIZE) -> np.ndarray:
    """Blotches of colour on a dark ground, float32 (count, size, size, 3), 0..255 RGB."""
    rng = np.random.default_rng(1)
    coarse = rng.integers(0, 256, (count, size // 8, size // 8, 3)).astype(np.float32)
    return np.kron(coarse, np.ones((1, 8, 8, 1), np.float32))


def cnn(keras: Any, *, activation: str | None = "softmax", outputs: int = LABELS) -> Any:
    """A Rescaling layer, convolutions with batch normalisation, pooling and one dense layer."""
    layers = keras.layers
    inputs = keras.Input((SIZE, SIZE, 3), name="picture")
    x = layers.Rescaling(1 / 127.5, -1.0)(inputs)
    for channels in (8, 16):
        x = layers.Conv2D(channels, 3, 2, padding="same", use_bias=False)(x)
        x = layers.BatchNormalization(momentum=0.0)(x)
        x = layers.ReLU()(x)
    x = layers.DepthwiseConv2D(3, padding="same")(x)
    x = layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, layers.Dense(outputs, activation=activation, name="scores")(x))
    model(frames(), training=True)
    return model


def squeezed(keras: Any) -> Any:
    """Swish and squeeze-excite, without scaling: it takes -1..1."""
    layers = keras.layers
    inputs = keras.Input((SIZE, SIZE, 3))
    x = layers.Conv2D(16, 3, 2, activation="swish")(inputs)
    gate = layers.GlobalAveragePooling2D(keepdims=True)(x)
    gate = layers.Conv2D(16, 1, activation="sigmoid")(layers.Conv2D(4, 1, activation="swish")(gate))
    x = layers.GlobalAveragePooling2D()(layers.Multiply()([x, gate]))
    return keras.Model(inputs, layers.Dense(LABELS)(x))


def nested(keras: Any) -> Any:
    """Augmentation, scaling and a model as layers of a Sequential, as in Keras's guide to fine-tuning."""
    layers = keras.layers
    inputs = keras.Input((SIZE, SIZE, 3))
    inner = keras.Model(inputs, layers.Conv2D(8, 3, activation="relu")(inputs), name="backbone")
    parts = [layers.RandomFlip(), layers.Rescaling(1 / 255), inner, layers.GlobalMaxPooling2D()]
    return keras.Sequential(
        [keras.Input((SIZE, SIZE, 3)), *parts, layers.Dense(LABELS, activation="sigmoid")]
    )


def normalised(keras: Any) -> Any:
    """A Normalization layer that knows the statistics of levels."""
    layers = keras.layers
    inputs = keras.Input((SIZE, SIZE, 3))
    x = layers.Normalization(mean=[120.0, 100.0, 80.0], variance=[3600.0, 2500.0, 1600.0])(inputs)
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(8, 3, activation="gelu")(x))
    return keras.Model(inputs, layers.Softmax()(layers.Dense(LABELS)(x)))


def convnext(keras: Any) -> Any:
    """Keras's own ConvNeXt, small: layers of its own, exact GELU, and grouped convolutions that XLA wraps."""
    from keras.src.applications.convnext import ConvNeXt

    options = {
        "include_preprocessing": True,
        "classes": LABELS,
        "weights": None,
        "classifier_activation": None,
    }
    return ConvNeXt((1, 1, 1, 1), (8, 8, 16, 16), name="convnext", input_shape=(SIZE, SIZE, 3), **options)


def answerable(name: str, model: Any, path: Path, batch: np.ndarray) -> None:
    """Save a model with its answers."""
    model.save(path)
    np.save(path.with_name(f"{name}.npy"), np.asarray(model(batch, training=False)))


def write_keras(folder: Path) -> None:
    """Write what Keras 3 writes: models that can be adopted, and models that cannot."""
    import keras

    from capsule_edge.train.gpu.adoptable_models import build_vit

    keras.utils.set_random_seed(0)
    models = {
        "cnn": cnn(keras),
        "single": cnn(keras, activation="sigmoid", outputs=1),
        "vit": build_vit(LABELS, keras, size=SIZE, patch=8, width=32, depth=2),
        "squeezed": squeezed(keras),
        "nested": nested(keras),
        "normalised": normalised(keras),
        "convnext": convnext(keras),
    }
    rng = np.random.default_rng(2)
    for layer in models["vit"].layers:
        if isinstance(layer, keras.layers.LayerNormalization):
            layer.beta.assign(rng.normal(0, 0.1, layer.beta.shape))
    for name, model in models.items():
        answerable(
            name, model, folder / f"{name}.keras", frames() / 127.5 - 1 if name == "squeezed" else frames()
        )
    models["cnn"].save(folder / "cnn_legacy.h5")
    models["cnn"].export(str(folder / "cnn_exported"), verbose=False)
    models["cnn"].save_weights(folder / "only.weights.h5")
    refused_by_keras(keras, folder)


def refused_by_keras(keras: Any, folder: Path) -> None:
    """Write models that cannot be adopted, each for one reason."""
    layers = keras.layers

    class Halved(layers.Layer):
        def call(self, x: Any) -> Any:
            return x / 2

    class Own(keras.Model):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self.dense = layers.Dense(LABELS)

        def call(self, x: Any) -> Any:
            return self.dense(keras.ops.mean(x, (1, 2)))

    def ending(x: Any, inputs: Any, name: str) -> None:
        pooled = layers.GlobalAveragePooling2D()(x)
        keras.Model(inputs, layers.Dense(LABELS)(pooled)).save(folder / f"{name}.keras")

    inputs, other = keras.Input((SIZE, SIZE, 3), name="left"), keras.Input((SIZE, SIZE, 3), name="right")
    ending(Halved(name="halving")(inputs), inputs, "custom")
    ending(layers.Lambda(lambda x: x / 2, name="code")(inputs), inputs, "lambda")
    ending(layers.Add()([inputs, other]), [inputs, other], "two_inputs")
    ending(layers.Conv2D(4, 3, dtype="mixed_float16", name="half")(inputs), inputs, "mixed")
    freely = keras.Input((None, None, 3))
    ending(layers.Conv2D(4, 3)(freely), freely, "open_size")
    keras.Model(inputs, layers.Conv2D(2, 3)(inputs)).save(folder / "maps.keras")
    own = Own(name="own")
    own(frames())
    own.save(folder / "subclassed.keras")


def write_tf_keras(folder: Path) -> None:
    """Write what tf_keras writes, and TFLite and SavedModel as TensorFlow does."""
    import tensorflow as tf
    import tf_keras

    tf_keras.utils.set_random_seed(0)
    model = cnn(tf_keras, activation=None)
    answerable("cnn", model, folder / "cnn.h5", frames())
    model.save(folder / "cnn.keras")
    model.save(folder / "cnn_saved")
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    (folder / "cnn.tflite").write_bytes(converter.convert())
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_types = [tf.float16]
    (folder / "half.tflite").write_bytes(converter.convert())
    write_reading_model(tf, folder / "reading")
    write_erf_model(tf, folder / "erf_saved")


def write_erf_model(tf: Any, folder: Path) -> None:
    """Write a SavedModel with an operation that ONNX has and TFLite's own operators lack: the error function."""

    class Erf(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.kernel = tf.Variable(tf.random.normal((3, 3, 3, 8)))
            self.weights = tf.Variable(tf.random.normal((8, LABELS)))

        @tf.function(input_signature=[tf.TensorSpec((None, SIZE, SIZE, 3), tf.float32)])
        def __call__(self, x: Any) -> Any:
            maps = tf.math.erf(tf.nn.conv2d(x / 255, self.kernel, 2, "SAME"))
            return {"scores": tf.linalg.matmul(tf.reduce_mean(maps, (1, 2)), self.weights)}

    module = Erf()
    tf.saved_model.save(module, str(folder), signatures=module.__call__)


def write_reading_model(tf: Any, folder: Path) -> None:
    """Write a SavedModel that reads a file of the machine it runs on."""

    class Reading(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((None, SIZE, SIZE, 3), tf.float32)])
        def __call__(self, x: Any) -> Any:
            length = tf.strings.length(tf.io.read_file("/etc/hostname"))
            return {"scores": tf.reduce_mean(x, (1, 2)) + tf.cast(length, tf.float32)}

    module = Reading()
    tf.saved_model.save(module, str(folder), signatures=module.__call__)


if __name__ == "__main__":
    os.environ["KERAS_BACKEND"] = "tensorflow"
    target = Path(sys.argv[2])
    target.mkdir(parents=True, exist_ok=True)
    (write_keras if sys.argv[1] == "keras" else write_tf_keras)(target)
