"""Build a planned twin in tf_keras, and train it with its weights and activations rounded to 8 bits by TFMOT.

Two networks share the plan: a float one, which is converted, and one that emulates INT8, which is trained. A step of
training is measured in shares of the largest weight of a channel. So all channels keep pace, whatever their scale: the
INT8 file rounds each to shares of this weight too. Biases are measured by the spread of what their channel computes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras
from tensorflow_model_optimization.quantization.keras import QuantizeWrapperV2

from capsule_edge.train.qat import LayerConfig, Pairs, RangeObserver, WeightQuantizer, short_name

from ..facts import Floats
from ..network_layers import NetworkLayer
from .channel_scales import even_channels, find_pairs
from .rounding_points import find_rounding_points
from .trained_ranges import TrainedRange, describe_values
from .twin_plan import KERNELS

__all__ = ["TwinNetwork"]

# Layers that pass rounded values on as they are.
_PASSING = ("Flatten", "GlobalMaxPooling2D", "MaxPooling2D", "Reshape", "ZeroPadding2D")
# Adam's decays (Kingma and Ba, ICLR 2015).
_MEAN_DECAY, _SQUARE_DECAY, _LEAST = 0.9, 0.999, 1e-9


class TwinNetwork:
    """A twin in memory.

    Args:
        layers: The planned layers.
        seed: The seed of everything that is drawn.
    """

    def __init__(self, layers: Sequence[NetworkLayer], seed: int) -> None:
        tf_keras.utils.set_random_seed(seed)
        tf.config.experimental.enable_op_determinism()
        self._layers = tuple(layers)
        self.model = _build(layers, {layer.name: _make(layer) for layer in layers if layer.inputs})
        for layer in layers:
            _assign(self.model.get_layer(layer.name), layer.weights)
        self._trainer: _Trainer | None = None

    def prepare(self, batch: Floats, temperature: float) -> None:
        """Build the network that emulates INT8, with its ranges set on a batch.

        Args:
            batch: float32 (N, size, size, 3), scaled for the network.
            temperature: The temperature that divides the logits before the softmax.
        """
        self._trainer = _Trainer(self._layers, self.model, batch, temperature)

    def step(self, batch: Floats, targets: Floats, rate: float) -> float:
        """Train on one batch, and return its loss.

        Args:
            batch: float32 (N, size, size, 3), scaled for the network.
            targets: The wanted probabilities, float32 (N, labels).
            rate: The size of the step, as a share of the largest weight of a channel.
        """
        assert self._trainer is not None  # ``prepare`` comes first
        return self._trainer.step(batch, targets, rate)

    def even_channels(self, batch: Floats) -> None:
        """Give channels equal reach on a batch where that leaves the answers as they are (``channel_scales``)."""
        names = [pair.value for pair in find_pairs(self._layers)]
        values = _compute(self.model, names, batch)
        reach = {
            name: np.abs(value).reshape(-1, value.shape[-1]).max(axis=0) for name, value in values.items()
        }
        self._layers = even_channels(self._layers, reach)
        for layer in self._layers:
            _assign(self.model.get_layer(layer.name), layer.weights)

    def ranges(self, batch: Floats) -> list[TrainedRange]:
        """Return the trained ranges of all values, described on a batch. ``take_over`` comes first."""
        assert self._trainer is not None  # ``prepare`` comes first
        known = self._trainer.ranges()
        for layer in self._layers:
            if layer.kind in _PASSING and layer.inputs[0] in known:
                known[layer.name] = known[layer.inputs[0]]
        values = _compute(self.model, list(known), batch)
        return [TrainedRange(describe_values(values[name]), *ends) for name, ends in known.items()]

    def take_over(self) -> None:
        """Copy the trained weights, before rounding, into the float network."""
        assert self._trainer is not None  # ``prepare`` comes first
        for name, weights in self._trainer.weights().items():
            _assign(self.model.get_layer(name), weights)


class _Trainer:
    """A twin that emulates INT8, with the state of its training."""

    def __init__(self, layers: Sequence[NetworkLayer], model: Any, batch: Floats, temperature: float) -> None:
        points = find_rounding_points(layers)
        self._made: dict[str, Any] = {}
        self._rounded, made = points.outputs, self._made
        for layer in layers:
            if layer.inputs:
                made[layer.name] = _round(layer, layer.name in points.kernels, layer.name in points.outputs)
        self._model = _build(layers, made)
        for layer in layers:
            if layer.inputs:
                _assign(made[layer.name], layer.weights)
        self._variables = {layer.name: _trained(layer, made) for layer in layers if layer.kind in KERNELS}
        units = _units(layers, model, batch)
        self._flat = [
            (
                variable,
                tf.constant(units[name][key]),
                tf.Variable(tf.zeros_like(variable)),
                tf.Variable(tf.zeros_like(variable)),
            )
            for name, variables in self._variables.items()
            for key, variable in variables.items()
        ]
        self._temperature, self._count = temperature, tf.Variable(0.0)
        # The first batch sets the ranges.
        self._model(batch, training=True)
        shapes = [(None, *batch.shape[1:]), (None, self._model.output_shape[-1]), ()]
        signature = [tf.TensorSpec(shape, tf.float32) for shape in shapes]
        self._step = tf.function(self._take_step, input_signature=signature)

    def step(self, batch: Floats, targets: Floats, rate: float) -> float:
        """Train on one batch, and return its loss."""
        return float(self._step(batch, targets, np.float32(rate)))

    def ranges(self) -> dict[str, tuple[float, float]]:
        """Return the range of each rounded output by layer, as TensorFlow rounds it: 0 is one of the levels."""
        found = {}
        for name in self._rounded:
            grid = self._made[name]._output_quantizer_vars
            low, high = float(grid["min_var"]), float(grid["max_var"])
            found[name] = (min(low, 0.0), max(high, 0.0))
        return found

    def weights(self) -> dict[str, dict[str, Floats]]:
        """Return the trained weights by layer and short name."""
        return {
            name: {key: variable.numpy() for key, variable in variables.items()}
            for name, variables in self._variables.items()
        }

    def _take_step(self, batch: Any, targets: Any, rate: Any) -> Any:
        with tf.GradientTape() as tape:
            logits = self._model(batch, training=True) / self._temperature
            surprise = tf.math.log(tf.maximum(targets, 1e-12)) - tf.nn.log_softmax(logits)
            loss = tf.reduce_mean(tf.reduce_sum(targets * surprise, axis=1))
        gradients = tape.gradient(loss, [variable for variable, *_ in self._flat])
        self._count.assign_add(1.0)
        mean_share = 1 - tf.pow(_MEAN_DECAY, self._count)
        square_share = 1 - tf.pow(_SQUARE_DECAY, self._count)
        for gradient, (variable, unit, mean, square) in zip(gradients, self._flat, strict=True):
            relative = gradient * unit
            mean.assign(_MEAN_DECAY * mean + (1 - _MEAN_DECAY) * relative)
            square.assign(_SQUARE_DECAY * square + (1 - _SQUARE_DECAY) * tf.square(relative))
            size = tf.sqrt(square / square_share) + _LEAST
            variable.assign_sub(rate * unit * (mean / mean_share) / size)
        return loss


def _make(layer: NetworkLayer) -> Any:
    """Return the layer of tf_keras."""
    made = getattr(tf_keras.layers, layer.kind)(name=layer.name, **layer.config)
    # A normalisation that is not trained computes with its stored statistics in training too.
    made.trainable = layer.kind != "BatchNormalization"
    return made


def _build(layers: Sequence[NetworkLayer], made: Mapping[str, Any]) -> Any:
    """Connect layers of tf_keras to a model."""
    tensors: dict[str, Any] = {}
    for layer in layers:
        if not layer.inputs:
            inputs = tensors[layer.name] = tf_keras.Input(layer.config["shape"], name=layer.name)
            continue
        given = [tensors[name] for name in layer.inputs]
        tensors[layer.name] = made[layer.name](given[0] if len(given) == 1 else given)
    return tf_keras.Model(inputs, tensors[layers[-1].name], name="twin")


def _round(layer: NetworkLayer, kernel: bool, output: bool) -> Any:
    """Return the layer of tf_keras, inside TFMOT's wrapper where its weights or its output are rounded."""
    made = _make(layer)
    if not kernel and not output:
        return made
    config = LayerConfig(
        kernel=KERNELS[layer.kind] if kernel else None,
        weights=_weight_quantizer(layer) if kernel else None,
        output=RangeObserver(nonnegative=layer.kind == "ReLU") if output else None,
        source=layer.name,
    )
    return QuantizeWrapperV2(made, config)


def _weight_quantizer(layer: NetworkLayer) -> Any:
    """Return a quantiser whose weights are safe from saturation, as those of the INT8 file that is tried first."""
    if layer.kind == "DepthwiseConv2D":
        return WeightQuantizer(depthwise=True)
    pointwise = layer.kind == "Dense" or list(layer.config["kernel_size"]) == [1, 1]
    pairs: Pairs = "adjacent" if pointwise else "any"
    return WeightQuantizer(pairs=pairs)


def _assign(layer: Any, weights: Mapping[str, Floats]) -> None:
    for variable in layer.weights:
        if short_name(variable) in weights:
            variable.assign(weights[short_name(variable)])


def _trained(layer: NetworkLayer, made: Mapping[str, Any]) -> dict[str, Any]:
    """Return the variables of a layer that are trained, by their short name."""
    variables = {short_name(variable): variable for variable in made[layer.name].weights}
    return {key: variables[key] for key in layer.weights}


def _compute(model: Any, names: Sequence[str], batch: Floats) -> dict[str, Floats]:
    """Return the outputs of layers for a batch, by the layer's name."""
    watched = tf_keras.Model(model.inputs, [model.get_layer(name).output for name in names])
    values = watched(batch, training=False) if names else []
    values = values if isinstance(values, list | tuple) else [values]
    return {name: np.asarray(value) for name, value in zip(names, values, strict=True)}


def _units(layers: Sequence[NetworkLayer], model: Any, batch: Floats) -> dict[str, dict[str, Floats]]:
    """Return the unit of each weight: the largest weight of its channel, or for a bias the spread of its values."""
    kernels = [layer for layer in layers if layer.kind in KERNELS]
    values = _compute(model, [layer.name for layer in kernels], batch)
    units = {}
    for layer in kernels:
        value = values[layer.name]
        name = KERNELS[layer.kind]
        kernel = np.abs(layer.weights[name])
        axes = (0, 1, 3) if layer.kind == "DepthwiseConv2D" else tuple(range(kernel.ndim - 1))
        largest = kernel.max(axis=axes, keepdims=True)
        flat = value.reshape(-1, value.shape[-1])
        units[layer.name] = {
            name: np.broadcast_to(largest, kernel.shape).astype(np.float32),
            "bias": flat.std(axis=0).astype(np.float32),
        }
    return units
