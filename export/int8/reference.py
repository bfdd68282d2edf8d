"""Compute an integer model exactly, operation by operation. Both INT8 files must give these answers.

Sums are exact (integers in float64). They are rounded as onnxruntime's MLAS and XNNPACK round: the 32-bit sum times
one float32 factor, to the nearest integer, ties to even. The Keras QAT model computes with the same arithmetic from
its own variables (``train.qat.integer_layers``). ``compare_layers`` compares the two layer by layer, so that later
layers do not amplify a difference.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tf_keras

from capsule_edge.runtime.errors import ModelError

from ..contract import FrameArray, Outputs, Runner, scale_pixels
from .integers import FloatKernel, IntegerModel, IntegerNode, IntegerTensor, Kernel

__all__ = [
    "Integers",
    "check_layers",
    "compare_layers",
    "compute",
    "compute_node",
    "quantize_pixels",
    "reference_runner",
    "round_sums",
]

# s8 activations (N, h, w, channels).
Integers = npt.NDArray[np.int8]
# Allowed share of a layer's values that differ by one step. None was seen in 65 layers and 256 frames. Chance leaves
# some 1e-6: a float32 sum next to the middle between two steps. A scale that is wrong by 1 % moves a third of them.
_FLIPS = 1e-5
# The same for a layer kept in float: sums of 1e3 float32 products in another order are off by some 1e-6 of 255 steps.
_FLOAT_FLIPS = 1e-3


def reference_runner(model: IntegerModel, temperature: float) -> Runner:
    """Return a runner of the exact integers, with the three outputs of the contract.

    Args:
        model: The integer model.
        temperature: The temperature that calibrates the probabilities.
    """

    def run(frames: FrameArray) -> Outputs:
        values = compute(model, frames)
        logits = _dequantize(values[model.logits.name], model.logits)[:, 0, 0]
        maps = _dequantize(values[model.maps.name], model.maps)
        powers = np.exp((logits - logits.max(axis=1, keepdims=True)) / temperature)
        return {
            "probabilities": np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float32),
            "logits": logits,
            "features": np.asarray(maps @ model.classifier, np.float32),
        }

    return run


def quantize_pixels(frames: FrameArray) -> Integers:
    """Return uint8 frames as the model's input in s8: each pixel less 128."""
    return np.asarray((frames.astype(np.int16) - 128).astype(np.int8))


def compute(model: IntegerModel, frames: FrameArray) -> dict[str, Integers]:
    """Compute every activation of the model.

    Args:
        model: The integer model.
        frames: uint8 RGB (N, size, size, 3).

    Returns:
        The activations by name, s8 (N, h, w, channels), or float32 for an unrounded one.
    """
    values = {model.pixels.name: quantize_pixels(frames)}
    for node in model.nodes:
        values[node.output.name] = compute_node(node, [values[tensor.name] for tensor in node.inputs])
    return values


def compute_node(node: IntegerNode, inputs: list[Integers]) -> Integers:
    """Compute one operation.

    Args:
        node: The operation.
        inputs: Its inputs, s8 (N, h, w, channels), or float32 for an unrounded one.

    Returns:
        Its output, s8 (N, h, w, channels), or float32 for an unrounded one.
    """
    if node.float_kernel is not None:
        return np.asarray(_compute_float(node, node.float_kernel, _dequantize(inputs[0], node.inputs[0])))
    centred = [
        values.astype(np.float64) - tensor.zero_point
        for values, tensor in zip(inputs, node.inputs, strict=True)
    ]
    if node.kernel is not None:
        return round_sums(
            node, node.kernel, np.asarray(_convolve(node, node.kernel.weights.astype(np.float64), centred[0]))
        )
    if node.kind == "add":
        total = sum(
            values.astype(np.float32) * tensor.scale
            for values, tensor in zip(centred, node.inputs, strict=True)
        )
        return _round(np.asarray(total, np.float32) / node.output.scale, node.output)
    if node.kind == "mean":
        height, width, _ = node.inputs[0].shape
        factor = node.inputs[0].scale / (node.output.scale * np.float32(height * width))
        return _round(centred[0].sum(axis=(1, 2), keepdims=True).astype(np.float32) * factor, node.output)
    padding = node.padding.upper()
    pool = tf.nn.max_pool2d if node.kind == "max_pool" else tf.nn.avg_pool2d
    return _round(np.asarray(pool(centred[0], node.window, node.strides, padding), np.float32), node.output)


def _compute_float(node: IntegerNode, kernel: FloatKernel, values: npt.NDArray[np.float32]) -> Any:
    """Compute a convolution kept in float. Round the output unless the layer behind it is kept in float too."""
    sums = np.asarray(_convolve(node, kernel.weights.astype(np.float64), values.astype(np.float64)))
    result = np.asarray(sums + kernel.biases, np.float32)
    if kernel.relu:
        result = np.clip(result, 0, kernel.ceiling)
    return result if node.output.unrounded else _round(result / node.output.scale, node.output)


def round_sums(node: IntegerNode, kernel: Kernel, sums: npt.NDArray[np.float64]) -> Integers:
    """Turn a convolution's sums of products into its output: add the bias, scale, round.

    Args:
        node: The convolution.
        kernel: Its integer weights.
        sums: (N, h, w, out), whole numbers, without the bias.

    Returns:
        s8 (N, h, w, out).
    """
    factors = node.inputs[0].scale * kernel.scales / node.output.scale
    return _round((sums + kernel.biases).astype(np.float32) * factors, node.output)


def _convolve(node: IntegerNode, weights: Any, values: npt.NDArray[np.float64]) -> Any:
    """Return the sums of products, float64 (N, h, w, out). They are exact for whole numbers."""
    padding = node.padding.upper()
    if node.kind == "depthwise":
        strides = (1, *node.strides, 1)
        return tf.nn.depthwise_conv2d(values, weights[..., None], strides, padding)
    if node.window == (1, 1) and node.strides == (1, 1):
        return values @ weights[0, 0]
    return tf.nn.conv2d(values, weights, node.strides, padding)


def _round(steps: npt.NDArray[np.float32], tensor: IntegerTensor) -> Integers:
    return np.asarray(np.clip(np.rint(steps) + tensor.zero_point, -128, 127), np.int8)


def _dequantize(values: Any, tensor: IntegerTensor) -> npt.NDArray[np.float32]:
    if tensor.unrounded:
        return np.asarray(values, np.float32)
    return np.asarray((values.astype(np.float32) - tensor.zero_point) * tensor.scale, np.float32)


def compare_layers(
    model: IntegerModel, qat_model: Any, frames: FrameArray
) -> Mapping[str, tuple[float, int]]:
    """Compare each layer's integers with what the QAT model emulates.

    Each layer is given the inputs that the QAT model gives it, so a difference stays in its layer. Layers whose output
    is not rounded are left out.

    Args:
        model: The integers read from ``qat_model``.
        qat_model: The Keras QAT model.
        frames: uint8 RGB (N, size, size, 3).

    Returns:
        By layer: the share of values that differ, and the largest difference in steps.
    """
    emulated = _emulate(model, qat_model, frames)
    values: dict[str, Integers] = {model.pixels.name: quantize_pixels(frames)}
    found = {}
    for node in model.nodes:
        name = node.output.name
        values[name] = compute_node(node, [values[tensor.name] for tensor in node.inputs])
        if name not in emulated:
            continue
        given = emulated[name].reshape(values[name].shape)
        if node.output.unrounded:
            values[name] = given
            continue
        steps = np.rint(given / node.output.scale) + node.output.zero_point
        difference = np.abs(steps - values[name])
        found[node.name] = (float(np.mean(difference > 0)), int(difference.max()))
        values[name] = np.clip(steps, -128, 127).astype(np.int8)
    return found


def _emulate(model: IntegerModel, qat_model: Any, frames: FrameArray) -> dict[str, npt.NDArray[Any]]:
    """Return the QAT model's output of every node that is a layer there, float32, by the output's name."""
    layers = {
        layer.layer.name: layer.output for layer in qat_model.layers if hasattr(layer, "quantize_config")
    }
    names = [node.output.name for node in model.nodes if node.output.name in layers]
    watched = tf_keras.Model(qat_model.inputs, [layers[name] for name in names])
    outputs = watched(scale_pixels(frames), training=False)
    return {name: np.asarray(output) for name, output in zip(names, outputs, strict=True)}


def check_layers(model: IntegerModel, qat_model: Any, frames: FrameArray) -> None:
    """Check every layer's integers against what the QAT model emulates (``compare_layers``).

    Raises:
        ModelError: More values differ than rounding explains. The error names the first such layer.
    """
    for name, (share, steps) in compare_layers(model, qat_model, frames).items():
        allowed = _FLOAT_FLIPS if name in model.kept_float else _FLIPS
        if share > allowed or steps > 1:
            raise ModelError(
                f"layer {name!r} differs from the QAT model in {share:.2g} of its values, by up to {steps} steps",
                hint=f"rounding explains a share of {allowed:.0e}, by one step",
            )
