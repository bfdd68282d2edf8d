"""Feature maps and Grad-CAM of a Keras model, layer by layer.

This is own code because tf-explain 0.3.1, its last version, of 2021, builds its models with the Keras 3 of
current TensorFlow and refuses the layers of tf_keras.
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
    """Return the names of the layers whose output is a map (height, width, channels), from input to output."""
    return tuple(
        layer.name
        for layer in model.layers
        if len(layer.output.shape) == 4 and "Input" not in type(layer).__name__
    )


def stage_layers(model: Any) -> tuple[str, ...]:
    """Return the name of the last layer at each resolution, from input to output."""
    last = {tuple(model.get_layer(name).output.shape[1:3]): name for name in map_layers(model)}
    return tuple(last.values())


def feature_maps(model: Any, pixels: Pixels, layers: Sequence[str] = ()) -> dict[str, Floats]:
    """Return the outputs of layers.

    Args:
        model: a functional tf_keras model.
        pixels: preprocessed frames, uint8 RGB (N, size, size, 3).
        layers: names of layers whose output is a map; by default all of them.

    Returns:
        float32 (N, h, w, channels) by layer.

    Raises:
        UsageError: the model has no such layer, or the layer's output is no map.
        InputError: ``pixels`` have another shape or dtype.

    Example:
        ``feature_maps(model, pixels, ["relu_1"])["relu_1"].shape``
    """
    names = _checked(model, pixels, layers)
    inside = type(model)(model.inputs, [model.get_layer(name).output for name in names])
    answers = inside(scale(pixels), training=False)
    answers = [answers] if len(names) == 1 and not isinstance(answers, list | tuple) else answers
    return {name: np.asarray(answer, np.float32) for name, answer in zip(names, answers, strict=True)}


def grad_cam(
    model: Any, pixels: Pixels, layer: str | None = None, *, labels: Sequence[int] | None = None
) -> Floats:
    """Return Grad-CAM maps (Selvaraju et al., ICCV 2017).

    Channels are weighted by the mean gradient of the logit, and only what speaks for the label is kept. At
    the last layer this is the class-activation map.

    Args:
        model: a functional tf_keras model.
        pixels: preprocessed frames, uint8 RGB (N, size, size, 3).
        layer: name of a layer whose output is a map; by default the last one.
        labels: the label of each frame, as its column; by default that of its highest logit.

    Returns:
        float32 (N, h, w) in 0..1.

    Raises:
        UsageError: the model has no such layer, or the layer's output is no map.
        InputError: ``pixels`` have another shape or dtype.
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
    """Return the softmax of the logits divided by ``temperature``.

    Args:
        model: a functional tf_keras model.
        pixels: preprocessed frames, uint8 RGB (N, size, size, 3).
        temperature: above 0; 1 gives uncalibrated probabilities.

    Returns:
        float32 (N, labels).
    """
    logits = np.asarray(model(scale(pixels), training=False), np.float64) / temperature
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True), np.float32)


def _checked(model: Any, pixels: Pixels, layers: Sequence[str]) -> tuple[str, ...]:
    """Return the layers, by default all that give maps, after checking layers and pixels."""
    known = map_layers(model)
    for name in layers:
        if name not in known:
            raise UsageError(
                f"the model has no layer {name!r} whose output is a map, allowed is one of {', '.join(known)}"
            )
    wanted = tuple(model.input_shape[1:])
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[1:] != wanted:
        raise InputError(
            f"pixels are {pixels.dtype} {pixels.shape}, needed is uint8 (N, {', '.join(map(str, wanted))})"
        )
    return tuple(layers) or known
