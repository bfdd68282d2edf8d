"""What a Keras model looks at, layer by layer: its feature maps, and Grad-CAM.

Own code: tf-explain 0.3.1, of 2021 and the last, builds its models with the Keras 3 of today's TensorFlow and
refuses the layers of tf_keras.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from capsule_edge.runtime.errors import InputError, UsageError
from capsule_edge.runtime.events import activation_map

from .data import scale

__all__ = ["feature_maps", "grad_cam", "map_layers", "probabilities", "stage_layers"]

Floats = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]


def map_layers(model: Any) -> tuple[str, ...]:
    """The layers that answer with a map (height, width, channels), from the input's side to the output's."""
    return tuple(
        layer.name
        for layer in model.layers
        if len(layer.output.shape) == 4 and "Input" not in type(layer).__name__
    )


def stage_layers(model: Any) -> tuple[str, ...]:
    """The last layer of each resolution: what a stage of the model hands on."""
    last = {tuple(model.get_layer(name).output.shape[1:3]): name for name in map_layers(model)}
    return tuple(last.values())


def feature_maps(model: Any, pixels: Pixels, layers: Sequence[str] = ()) -> dict[str, Floats]:
    """The outputs of ``layers`` (all that are maps where none is named), float32 (N, h, w, channels).

    ``pixels`` are uint8 RGB (N, size, size, 3), preprocessed. Raises ``UsageError`` for a layer that is not there or
    gives no map, ``InputError`` for pixels that do not fit.
    """
    names = _checked(model, pixels, layers)
    inside = type(model)(model.inputs, [model.get_layer(name).output for name in names])
    answers = inside(scale(pixels), training=False)
    answers = [answers] if len(names) == 1 and not isinstance(answers, list | tuple) else answers
    return {name: np.asarray(answer, np.float32) for name, answer in zip(names, answers, strict=True)}


def grad_cam(
    model: Any, pixels: Pixels, layer: str | None = None, *, labels: Sequence[int] | None = None
) -> Floats:
    """Grad-CAM maps float32 (N, h, w) in 0..1 of ``layer``, by default the last that gives a map.

    ``pixels`` are uint8 RGB (N, size, size, 3), preprocessed; ``labels`` the column of each frame, by default that
    of its highest logit. Channels are weighted by the mean gradient of the logit, and what speaks for the label
    is kept (Selvaraju et al., ICCV 2017). At the last layer that is the class-activation map.

    Raises as ``feature_maps``.
    """
    import tensorflow as tf

    (name,) = _checked(model, pixels, (layer,) if layer else map_layers(model)[-1:])
    both = type(model)(model.inputs, [model.get_layer(name).output, model.output])
    with tf.GradientTape() as tape:
        features, logits = both(scale(pixels), training=False)
        columns = tf.argmax(logits, axis=1) if labels is None else tf.constant(list(labels), tf.int64)
        chosen = tf.gather(logits, columns, axis=1, batch_dims=1)
    gradients = tape.gradient(chosen, features)
    weights = tf.reduce_mean(gradients, axis=(1, 2), keepdims=True)
    maps = np.asarray(tf.reduce_sum(weights * features, axis=-1), np.float32)
    return np.stack([activation_map(one) for one in maps])


def probabilities(model: Any, pixels: Pixels, *, temperature: float = 1.0) -> Floats:
    """Softmax of the logits over ``temperature``, float32 (N, labels), of preprocessed uint8 RGB frames."""
    logits = np.asarray(model(scale(pixels), training=False), np.float64) / temperature
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True), np.float32)


def _checked(model: Any, pixels: Pixels, layers: Sequence[str]) -> tuple[str, ...]:
    known = map_layers(model)
    for name in layers:
        if name not in known:
            raise UsageError(f"the model has no layer {name!r} that gives a map, it has {', '.join(known)}")
    wanted = tuple(model.input_shape[1:])
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[1:] != wanted:
        raise InputError(
            f"pixels are {pixels.dtype} {pixels.shape}, needed is uint8 (N, {', '.join(map(str, wanted))})"
        )
    return tuple(layers) or known
