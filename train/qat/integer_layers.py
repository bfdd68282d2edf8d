"""Layers that train on tfmot's float emulation of 8 bits and, in inference, compute with integers.

A float emulation and an integer engine differ if a sum lies near the middle between two steps, and later
layers amplify the difference. On the first default model 99.9 % of such differences came from biases that
were not rounded to the integer grid, and the rest from the order of float32 sums; together they moved a logit
by up to .4. Inference therefore extracts the integers, adds them up exactly and rounds as the engines do: the
sum as float32 times one float32 factor, to the nearest integer, ties to even (onnxruntime's MLAS, XNNPACK).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import tensorflow as tf
import tf_keras
from tensorflow_model_optimization.quantization.keras import QuantizeWrapperV2

from .fold_batch_norm import kernel_of, short_name

__all__ = ["Grid", "IntegerWrapper", "Ranges", "grid_of"]

_layers = tf_keras.layers
# The sum of this many products of 255 x 127 stays below 2**24, so float32 holds it exactly in any order.
_EXACT_IN_FLOAT32 = 2**24 // (255 * 127)
Ranges = Mapping[str, Any]


class Grid(NamedTuple):
    """The values of an 8-bit activation: ``scale * (0..255 - zero)``; both are float32 scalars."""

    scale: Any
    zero: Any

    def round(self, real: Any) -> Any:
        """Return the nearest value of the grid for each of ``real``, float32."""
        return self.at(real / self.scale)

    def at(self, steps: Any) -> Any:
        """Return the value that is ``steps`` steps from zero.

        The steps are rounded to the nearest whole number, ties to even, and saturated.
        """
        return (tf.clip_by_value(tf.round(steps), -self.zero, 255.0 - self.zero)) * self.scale

    def steps(self, values: Any) -> Any:
        """Return values of the grid as whole numbers of steps from zero, float32."""
        return tf.round(values / self.scale)


def grid_of(ranges: Ranges) -> Grid:
    """Return scale and zero point as TensorFlow's fake quantisation adjusts them, in float32 as well."""
    low, high = tf.convert_to_tensor(ranges["min_var"]), tf.convert_to_tensor(ranges["max_var"])
    scale = _divide(high - low, 255)
    return Grid(scale, tf.clip_by_value(tf.floor(-low / scale + 0.5), 0.0, 255.0))


def _divide(values: Any, by: int) -> Any:
    """Return the float32 quotient as IEEE rounds it.

    In a graph TensorFlow would multiply by a float32 reciprocal instead.
    """
    return tf.cast(tf.cast(values, tf.float64) / by, tf.float32)


class IntegerWrapper(QuantizeWrapperV2):  # type: ignore[misc]
    """tfmot's wrapper of a layer, with the integer arithmetic of the exported files in inference.

    ``connect`` sets the grids of inputs and output once all layers exist.
    """

    _connected: Callable[[], Any] | None = None
    # Whether inference computes the layer in float32 (``keep_float``), and whether its output stays unrounded.
    kept = False
    unrounded = False

    def connect(self, given: Sequence[Ranges], target: Ranges) -> None:
        """Set the ranges of each input and of the output, which may be that of a fused ReLU."""
        # Hide the variables in a function: Keras would take variables in an attribute for this layer's own.
        self._connected = lambda: (given, target)

    @property
    def connected(self) -> tuple[Sequence[Ranges], Ranges] | None:
        """The ranges that ``connect`` was given, or None before."""
        connected: tuple[Sequence[Ranges], Ranges] | None = self._connected() if self._connected else None
        return connected

    def call(self, inputs: Any, training: Any = None, **kwargs: Any) -> Any:
        """Compute the layer: with fake quantisation in training, with integers in inference."""
        training = tf_keras.backend.learning_phase() if training is None else training
        known = tf.get_static_value(training)
        # ``known`` is None only while the model is built, to infer shapes.
        if known is None or known or self.connected is None:
            return super().call(inputs, training, **kwargs)
        sources, goal = self.connected
        given, target = [grid_of(ranges) for ranges in sources], grid_of(goal)
        if kernel_of(self.layer):
            return self._compute(inputs, target) if self.kept else self._convolve(inputs, given[0], target)
        if isinstance(self.layer, _layers.Add):
            parts = [grid.steps(part) * grid.scale for part, grid in zip(inputs, given, strict=True)]
            return target.at(tf.add_n(parts) / target.scale)
        if isinstance(self.layer, _layers.GlobalAveragePooling2D):
            _, height, width, _ = inputs.shape
            factor = given[0].scale / (target.scale * float(height * width))
            return target.at(tf.reduce_sum(given[0].steps(inputs), axis=(1, 2)) * factor)
        real = self.layer.call(inputs)
        return real if self.unrounded else target.round(real)

    def _compute(self, inputs: Any, target: Grid) -> Any:
        """Compute the layer in float32; a fused ReLU behind it rounds in its place."""
        ((kernel, _, _),) = self._weight_vars
        setattr(self.layer, kernel_of(self.layer) or "", kernel)
        real = self.layer.call(inputs)
        return real if self.unrounded or not self._output_quantizers else target.round(real)

    def _convolve(self, inputs: Any, given: Grid, target: Grid) -> Any:
        """Compute a convolution or dense layer in integers."""
        ((kernel, quantizer, ranges),) = self._weight_vars
        scales = _divide(tf.convert_to_tensor(ranges["max_var"]), 127)
        rounded = quantizer(kernel, False, ranges)
        depthwise = kernel_of(self.layer) == "depthwise_kernel"
        per_channel = tf.reshape(scales, (-1, 1)) if depthwise else scales
        weights = tf.round(rounded / per_channel)
        sums = tf.cast(self._sum(given.steps(inputs), weights), tf.float64)
        if self.layer.use_bias:
            sums += self._bias(given.scale, scales)
        return target.at(tf.cast(sums, tf.float32) * (given.scale * scales / target.scale))

    def _bias(self, scale: Any, scales: Any) -> Any:
        """Return the bias in whole products of input scale and weight scale, float64 (channels,)."""
        (bias,) = (variable for variable in self.weights if short_name(variable) == "bias")
        return tf.round(
            tf.cast(bias, tf.float64) / (tf.cast(scale, tf.float64) * tf.cast(scales, tf.float64))
        )

    def _sum(self, steps: Any, weights: Any) -> Any:
        """Return the exact sums of products of whole numbers."""
        if isinstance(self.layer, _layers.Dense):
            return tf.matmul(tf.cast(steps, tf.float64), tf.cast(weights, tf.float64))
        strides, padding = self.layer.strides, self.layer.padding.upper()
        if isinstance(self.layer, _layers.DepthwiseConv2D):
            return tf.nn.depthwise_conv2d(steps, weights, (1, *strides, 1), padding)
        # TensorFlow may transform a larger kernel (Winograd), which is not exact in float32.
        small = weights.shape[:2] == (1, 1) and weights.shape[2] <= _EXACT_IN_FLOAT32
        dtype = tf.float32 if small else tf.float64
        return tf.nn.conv2d(tf.cast(steps, dtype), tf.cast(weights, dtype), strides, padding)
