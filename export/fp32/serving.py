"""The FP32 model as it is served: uint8 frames to the contract's three outputs, one TensorFlow function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf
import tf_keras

from capsule_edge.runtime.errors import ModelError
from capsule_edge.runtime.inference import ModelSpec

__all__ = ["OUTPUTS", "ServingModel", "check_fits"]

OUTPUTS = ("probabilities", "logits", "features")


class ServingModel(tf.Module):  # type: ignore[misc]
    """``serve`` maps uint8 RGB (N, s, s, 3) to probabilities and logits (N, labels) and features (N, h, w,
    labels).

    ``model`` is a Keras FP32 model that ends in global average pooling and one dense layer
    (``train.models.build``). Raises ``ModelError`` when it does not, or does not fit ``spec``.
    """

    def __init__(self, model: Any, spec: ModelSpec) -> None:
        super().__init__(name="capsule_edge")
        check_fits(model, spec)
        size = spec.input.size
        signature = tf.TensorSpec((None, size, size, 3), tf.uint8, name="frames")
        # Only the variables are attributes: a model kept here would be traced layer by layer when it is
        # converted.
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
    """Raise ``ModelError`` unless input size, labels and the last two layers are as the contract needs."""
    size, labels = int(model.inputs[0].shape[1]), int(model.outputs[0].shape[-1])
    if (size, labels) != (spec.input.size, len(spec.labels)):
        raise ModelError(
            f"the model takes {size} x {size} and has {labels} labels,"
            f" its spec says {spec.input.size} x {spec.input.size} and {len(spec.labels)}"
        )
    pool, dense = model.layers[-2:]
    if not (
        isinstance(pool, tf_keras.layers.GlobalAveragePooling2D) and isinstance(dense, tf_keras.layers.Dense)
    ):
        raise ModelError(
            f"the model ends in {type(pool).__name__} and {type(dense).__name__},"
            " needed is GlobalAveragePooling2D and one Dense"
        )
