"""The FP32 model as one TensorFlow function: uint8 frames in, the three outputs of the contract out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf
import tf_keras

from capsule_edge.runtime.errors import ModelError
from capsule_edge.runtime.inference import ModelSpec

__all__ = ["ServingModel", "check_fits"]


class ServingModel(tf.Module):  # type: ignore[misc]
    """The TensorFlow module that both FP32 files are converted from.

    ``serve`` maps uint8 RGB (N, size, size, 3) to float32 ``probabilities`` and ``logits`` (N, labels) and
    ``features`` (N, h, w, labels). The probabilities are calibrated with the temperature of ``spec``.

    Args:
        model: A Keras FP32 model that ends in global average pooling and one dense layer
            (as ``train.models.architectures.build`` makes it).
        spec: The model's ModelSpec.

    Raises:
        ModelError: The model ends otherwise, or its input size or number of labels differs from ``spec``.
    """

    def __init__(self, model: Any, spec: ModelSpec) -> None:
        super().__init__(name="capsule_edge")
        check_fits(model, spec)
        size = spec.input.size
        signature = tf.TensorSpec((None, size, size, 3), tf.uint8, name="frames")
        # Keep only the variables: the converters would trace a Keras model among the attributes layer by layer.
        self.parameters = list(model.variables)
        self.serve = tf.function(_serving(model, 1 / spec.temperature), input_signature=[signature])


def _serving(model: Any, inverse_temperature: float) -> Callable[[Any], dict[str, Any]]:
    pool, dense = model.layers[-2:]
    backbone = tf_keras.Model(model.inputs, [pool.input, model.outputs[0]])

    def serve(frames: Any) -> dict[str, Any]:
        pixels = (tf.cast(frames, tf.float32) - 128.0) / 128.0
        maps, logits = backbone(pixels, training=False)
        classifier = dense.kernel[tf.newaxis, tf.newaxis]
        return {
            "probabilities": tf.nn.softmax(logits * inverse_temperature),
            "logits": tf.identity(logits),
            "features": tf.nn.conv2d(maps, classifier, 1, "VALID"),
        }

    return serve


def check_fits(model: Any, spec: ModelSpec) -> None:
    """Raise ``ModelError`` unless the model has the spec's input size and labels and the required last layers.

    The last two layers must be global average pooling and one dense layer.
    """
    size, labels = int(model.inputs[0].shape[1]), int(model.outputs[0].shape[-1])
    if (size, labels) != (spec.input.size, len(spec.labels)):
        raise ModelError(
            f"the model takes {size} x {size} pixels and has {labels} labels, but its spec says"
            f" {spec.input.size} x {spec.input.size} and {len(spec.labels)}"
        )
    pool, dense = model.layers[-2:]
    if not (
        isinstance(pool, tf_keras.layers.GlobalAveragePooling2D) and isinstance(dense, tf_keras.layers.Dense)
    ):
        raise ModelError(
            f"the model ends in {type(pool).__name__} and {type(dense).__name__};"
            " it must end in GlobalAveragePooling2D and one Dense"
        )
