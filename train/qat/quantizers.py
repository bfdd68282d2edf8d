"""The quantisers of a QAT model: they observe the ranges of activations and bound the sums of weights.

Both emulate TFLite's 8-bit scheme (Jacob et al., CVPR 2018). Activations have one scale and one zero point
for each tensor. Weights are symmetric in [-127, 127] with one scale for each output channel.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
from tensorflow_model_optimization.quantization.keras import QuantizeConfig
from tensorflow_model_optimization.quantization.keras.quantizers import Quantizer

from .weight_ranges import Pairs, weight_limits

__all__ = [
    "INITIAL_RANGE",
    "INPUT_RANGE",
    "LayerConfig",
    "RangeObserver",
    "WeightQuantizer",
]

# (x - 128) / 128 for x in 0..255: scale 1/128, zero point 128, so that the INT8 model takes pixels unchanged.
INPUT_RANGE = (-1.0, 127 / 128)
INITIAL_RANGE = (-6.0, 6.0)


class RangeObserver(Quantizer):  # type: ignore[misc]
    """8-bit fake quantisation of an activation, over a range that follows the values in training.

    The first batch sets the range, and the weight of later batches falls to ``1 - decay``. tfmot's own
    observer averages with .999 from (-6, 6), so that a run of a few hundred steps ends near (-6, 6).

    Args:
        nonnegative: hold the lower end at 0, behind a ReLU.
        extreme: use the outermost values ever seen instead of the average. Clipped logits would make ties
            between classes.
        decay: decay of the moving average, 0..1.
    """

    def __init__(self, *, nonnegative: bool = False, extreme: bool = False, decay: float = 0.99) -> None:
        self.nonnegative = nonnegative
        self.extreme = extreme
        self.decay = decay

    def build(self, tensor_shape: Any, name: str, layer: Any) -> dict[str, Any]:
        """Create the variables of the range."""

        def variable(suffix: str, value: float) -> Any:
            start = tf.constant_initializer(value)
            return layer.add_weight(name=f"{name}_{suffix}", shape=(), initializer=start, trainable=False)

        low, high = INITIAL_RANGE
        # ``seen`` counts batches. Infinity freezes the range; 0 marks a range that was never set.
        return {
            "min_var": variable("min", low),
            "max_var": variable("max", high),
            "seen": variable("seen", 0.0),
        }

    def __call__(self, inputs: Any, training: Any, weights: dict[str, Any], **_: Any) -> Any:
        low, high = weights["min_var"], weights["max_var"]
        if training:
            self._observe(inputs, low, high, weights["seen"])
        return tf.quantization.fake_quant_with_min_max_vars(inputs, low, high, num_bits=8)

    def _observe(self, inputs: Any, low: Any, high: Any, seen: Any) -> None:
        """Move the range towards the values of a batch."""
        batch_low = tf.minimum(tf.reduce_min(inputs), 0.0) * (0.0 if self.nonnegative else 1.0)
        batch_high = tf.maximum(tf.reduce_max(inputs), 0.0)
        if self.extreme:
            batch_low = tf.where(seen > 0, tf.minimum(low, batch_low), batch_low)
            batch_high = tf.where(seen > 0, tf.maximum(high, batch_high), batch_high)
        share = tf.where(tf.math.is_inf(seen), 0.0, 1.0)
        if not self.extreme:
            share *= tf.maximum(1.0 / (1.0 + seen), 1.0 - self.decay)
        low.assign(low + share * (batch_low - low))
        high.assign(high + share * (batch_high - high))
        seen.assign_add(1.0)

    def get_config(self) -> dict[str, Any]:
        return {"nonnegative": self.nonnegative, "extreme": self.extreme, "decay": self.decay}


class WeightQuantizer(Quantizer):  # type: ignore[misc]
    """8-bit symmetric fake quantisation of a kernel, with one range for each output channel.

    The range comes from the channel's weights. tfmot gives a depthwise kernel, (h, w, channels, 1), one range
    for all its channels; here each channel has its own.

    Args:
        depthwise: whether the kernel is depthwise.
        pairs: the weights that a 16-bit sum can join (``weight_limits``).
    """

    def __init__(self, *, depthwise: bool = False, pairs: Pairs = "none") -> None:
        self.depthwise = depthwise
        self.pairs = pairs

    def build(self, tensor_shape: Any, name: str, layer: Any) -> dict[str, Any]:
        """Create the variables of the ranges."""
        channels = int(tensor_shape[2] * tensor_shape[3] if self.depthwise else tensor_shape[-1])

        def variable(suffix: str, value: float) -> Any:
            start = tf.constant_initializer(value)
            return layer.add_weight(
                name=f"{name}_{suffix}", shape=(channels,), initializer=start, trainable=False
            )

        low, high = INITIAL_RANGE
        return {"min_var": variable("min", low), "max_var": variable("max", high)}

    def __call__(self, inputs: Any, training: Any, weights: dict[str, Any], **_: Any) -> Any:
        low, high = weights["min_var"], weights["max_var"]
        # The TFLite converter refuses a reshape behind the fake quantisation of an ordinary kernel.
        flat = tf.reshape(inputs, inputs.shape[:3]) if self.depthwise else inputs
        if training:
            limit = weight_limits(
                tf.stop_gradient(tf.reshape(flat, (-1, low.shape[0]))), keras.ops, pairs=self.pairs
            )
            low.assign(-limit)
            high.assign(limit)
        rounded = tf.quantization.fake_quant_with_min_max_vars_per_channel(
            flat, low, high, num_bits=8, narrow_range=True
        )
        return tf.reshape(rounded, inputs.shape) if self.depthwise else rounded

    def get_config(self) -> dict[str, Any]:
        return {"depthwise": self.depthwise, "pairs": self.pairs}


class LayerConfig(QuantizeConfig):  # type: ignore[misc]
    """The parts of a layer that a wrapper quantises: the kernel, the output, or neither.

    Args:
        kernel: the attribute of the layer that holds its kernel, if it has one.
        weights: the quantiser of the kernel.
        output: the quantiser of the output, if there is one.
        source: the FP32 layer whose output has the range of this layer's output.
        ceiling: the largest output of a clipped ReLU.
    """

    def __init__(
        self,
        *,
        kernel: str | None = None,
        weights: WeightQuantizer | None = None,
        output: Any = None,
        source: str = "",
        ceiling: float | None = None,
    ) -> None:
        self.kernel = kernel
        self.weights = weights
        self.output = output
        self.source = source
        self.ceiling = ceiling

    def get_weights_and_quantizers(self, layer: Any) -> list[tuple[Any, Any]]:
        return [(getattr(layer, self.kernel), self.weights)] if self.kernel else []

    def get_activations_and_quantizers(self, layer: Any) -> list[tuple[Any, Any]]:
        return []

    def set_quantize_weights(self, layer: Any, quantize_weights: list[Any]) -> None:
        if self.kernel:
            setattr(layer, self.kernel, quantize_weights[0])

    def set_quantize_activations(self, layer: Any, quantize_activations: list[Any]) -> None:
        # Activations are quantised at the layer's output, which comes behind a fused ReLU.
        return None

    def get_output_quantizers(self, layer: Any) -> list[Any]:
        return [self.output] if self.output else []

    def get_config(self) -> dict[str, Any]:
        return {"kernel": self.kernel, "source": self.source, "ceiling": self.ceiling}
