"""Layers that train on tfmot's float emulation of 8 bits and answer, in inference, with the integers themselves.

A float emulation and an integer engine differ where a sum lies near the middle between two steps, and later layers
amplify it. On the first default model biases that were not rounded to the integers' grid made 99.9 % of such
differences and the order of float32 sums the rest; together they moved a logit by up to .4. So inference here takes
the integers apart, sums them exactly and rounds as the engines do: the sum as float32 times one float32 factor, to
the nearest integer, ties to even (onnxruntime's MLAS, XNNPACK).
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
# So many products of 255 x 127 are exact in float32 whatever their order: their sum stays below 2**24.
_EXACT_IN_FLOAT32 = 2**24 // (255 * 127)
Ranges = Mapping[str, Any]


class Grid(NamedTuple):
    """The values an 8-bit activation can have: ``scale * (0..255 - zero)``, both float32 scalars."""

    scale: Any
    zero: Any

    def round(self, real: Any) -> Any:
        """The nearest value of the grid for each of ``real``, float32."""
        return self.at(real / self.scale)

    def at(self, steps: Any) -> Any:
        """The value ``steps`` (not whole) from zero, rounded to nearest, ties to even, and saturated."""
        return (tf.clip_by_value(tf.round(steps), -self.zero, 255.0 - self.zero)) * self.scale

    def steps(self, values: Any) -> Any:
        """Values of the grid as whole numbers of steps from zero, float32."""
        return tf.round(values / self.scale)


def grid_of(ranges: Ranges) -> Grid:
    """Scale and zero point as TensorFlow's fake quantisation nudges them, in float32 as there."""
    low, high = tf.convert_to_tensor(ranges["min_var"]), tf.convert_to_tensor(ranges["max_var"])
    scale = _divide(high - low, 255)
    return Grid(scale, tf.clip_by_value(tf.floor(-low / scale + 0.5), 0.0, 255.0))


def _divide(values: Any, by: int) -> Any:
    """The float32 quotient as IEEE rounds it: inside a graph TensorFlow would multiply by a float32 reciprocal."""
    return tf.cast(tf.cast(values, tf.float64) / by, tf.float32)


class IntegerWrapper(QuantizeWrapperV2):  # type: ignore[misc]
    """tfmot's wrapper, whose inference is the integer arithmetic of the exported files.

    ``connect`` says on which grids the inputs lie and to which the output goes, once all layers are there.
    """

    _connected: Callable[[], Any] | None = None
    # Computed in float32 in inference (``qat.keep_float``), and whether its output is left between the steps.
    kept = False
    unrounded = False

    def connect(self, given: Sequence[Ranges], target: Ranges) -> None:
        """``given`` are the ranges of each input, ``target`` that of the output, here or behind a fused ReLU."""
        # In a function, since Keras would take variables in an attribute for this layer's own.
        self._connected = lambda: (given, target)

    @property
    def connected(self) -> tuple[Sequence[Ranges], Ranges] | None:
        """What ``connect`` was given, None before."""
        connected: tuple[Sequence[Ranges], Ranges] | None = self._connected() if self._connected else None
        return connected

    def call(self, inputs: Any, training: Any = None, **kwargs: Any) -> Any:
        training = tf_keras.backend.learning_phase() if training is None else training
        known = tf.get_static_value(training)
        # Unknown only while the model is put together, for the shapes.
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
        """The layer in float32; a ReLU behind it rounds in its stead."""
        ((kernel, _, _),) = self._weight_vars
        setattr(self.layer, kernel_of(self.layer) or "", kernel)
        real = self.layer.call(inputs)
        return real if self.unrounded or not self._output_quantizers else target.round(real)

    def _convolve(self, inputs: Any, given: Grid, target: Grid) -> Any:
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
        """The bias in whole products of input scale and weight scale, float64 (channels,)."""
        (bias,) = (variable for variable in self.weights if short_name(variable) == "bias")
        return tf.round(
            tf.cast(bias, tf.float64) / (tf.cast(scale, tf.float64) * tf.cast(scales, tf.float64))
        )

    def _sum(self, steps: Any, weights: Any) -> Any:
        """The exact sums of products of whole numbers."""
        if isinstance(self.layer, _layers.Dense):
            return tf.matmul(tf.cast(steps, tf.float64), tf.cast(weights, tf.float64))
        strides, padding = self.layer.strides, self.layer.padding.upper()
        if isinstance(self.layer, _layers.DepthwiseConv2D):
            return tf.nn.depthwise_conv2d(steps, weights, (1, *strides, 1), padding)
        # A larger kernel may be transformed (Winograd), which is not exact in float32.
        small = weights.shape[:2] == (1, 1) and weights.shape[2] <= _EXACT_IN_FLOAT32
        dtype = tf.float32 if small else tf.float64
        return tf.nn.conv2d(tf.cast(steps, dtype), tf.cast(weights, dtype), strides, padding)
