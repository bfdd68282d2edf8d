"""The integer model computed exactly, operation by operation: what both INT8 files have to answer.

Sums are exact (integers in float64), and rounded as onnxruntime's MLAS and XNNPACK round: the 32-bit sum
times one float32 factor, to the nearest integer, ties to even. Keras QAT answers with the same arithmetic
(``train.integer_layers``) from its own variables; ``compare_layers`` holds the integers that were read to it,
layer by layer, before later layers amplify a difference.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tf_keras

from capsule_edge.runtime.errors import ModelError

from ..runners import Frames, Outputs, Runner
from .integers import IntegerModel, IntegerNode, IntegerTensor, Kernel, RealKernel

__all__ = ["check_layers", "compare_layers", "compute", "compute_node", "reference_runner", "round_sums"]

Integers = npt.NDArray[np.int8]
# Share of a layer's values that may round to the other side: none was seen in 65 layers and 256 frames. What is
# left to chance is a sum in float32 next to a middle, some 1e-6. A scale that is wrong by 1 % moves a third.
_FLIPS = 1e-5
# Of a layer kept in float: sums of 1e3 float32 products in another order are off by some 1e-6 of 255 steps.
_REAL_FLIPS = 1e-3


def reference_runner(model: IntegerModel, temperature: float) -> Runner:
    """The three outputs of the contract for uint8 frames (N, s, s, 3)."""

    def run(frames: Frames) -> Outputs:
        values = compute(model, frames)
        logits = _real(values[model.logits.name], model.logits)[:, 0, 0]
        maps = _real(values[model.maps.name], model.maps)
        powers = np.exp((logits - logits.max(axis=1, keepdims=True)) / temperature)
        return {
            "probabilities": np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float32),
            "logits": logits,
            "features": np.asarray(maps @ model.classifier, np.float32),
        }

    return run


def compute(model: IntegerModel, frames: Frames) -> dict[str, Integers]:
    """Every activation of the model by name, s8 (N, h, w, channels), float32 where it is not rounded."""
    values = {model.pixels.name: (frames.astype(np.int16) - 128).astype(np.int8)}
    for node in model.nodes:
        values[node.output.name] = compute_node(node, [values[tensor.name] for tensor in node.inputs])
    return values


def compute_node(node: IntegerNode, inputs: list[Integers]) -> Integers:
    """The node's output, s8 (N, h, w, channels), for s8 inputs of that form; float32 for what is not rounded."""
    if node.real is not None:
        return np.asarray(_compute_real(node, node.real, _real(inputs[0], node.inputs[0])))
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


def _compute_real(node: IntegerNode, kernel: RealKernel, values: npt.NDArray[np.float32]) -> Any:
    """A convolution kept in float, rounded to the output's scale unless its reader is kept too."""
    sums = np.asarray(_convolve(node, kernel.weights.astype(np.float64), values.astype(np.float64)))
    real = np.asarray(sums + kernel.biases, np.float32)
    if kernel.relu:
        real = np.clip(real, 0, kernel.ceiling)
    return real if node.output.unrounded else _round(real / node.output.scale, node.output)


def round_sums(node: IntegerNode, kernel: Kernel, sums: npt.NDArray[np.float64]) -> Integers:
    """A convolution's output for its sums of products, (N, h, w, out)."""
    factors = node.inputs[0].scale * kernel.scales / node.output.scale
    return _round((sums + kernel.biases).astype(np.float32) * factors, node.output)


def _convolve(node: IntegerNode, weights: Any, values: npt.NDArray[np.float64]) -> Any:
    """The sums of products, float64 (N, h, w, out), exact for whole numbers."""
    padding = node.padding.upper()
    if node.kind == "depthwise":
        strides = (1, *node.strides, 1)
        return tf.nn.depthwise_conv2d(values, weights[..., None], strides, padding)
    if node.window == (1, 1) and node.strides == (1, 1):
        return values @ weights[0, 0]
    return tf.nn.conv2d(values, weights, node.strides, padding)


def _round(steps: npt.NDArray[np.float32], tensor: IntegerTensor) -> Integers:
    return np.asarray(np.clip(np.rint(steps) + tensor.zero_point, -128, 127), np.int8)


def _real(values: Any, tensor: IntegerTensor) -> npt.NDArray[np.float32]:
    if tensor.unrounded:
        return np.asarray(values, np.float32)
    return np.asarray((values.astype(np.float32) - tensor.zero_point) * tensor.scale, np.float32)


def compare_layers(model: IntegerModel, qat_model: Any, frames: Frames) -> Mapping[str, tuple[float, int]]:
    """For each layer, given what QAT gives it: the share of values that differ, and by how many steps."""
    named = {
        layer.layer.name: layer.output for layer in qat_model.layers if hasattr(layer, "quantize_config")
    }
    names = [node.output.name for node in model.nodes if node.output.name in named]
    watched = tf_keras.Model(qat_model.inputs, [named[name] for name in names])
    pixels = (frames.astype(np.float32) - 128) / 128
    emulated = dict(zip(names, watched(pixels, training=False), strict=True))
    values: dict[str, Integers] = {model.pixels.name: (frames.astype(np.int16) - 128).astype(np.int8)}
    found = {}
    for node in model.nodes:
        computed = compute_node(node, [values[tensor.name] for tensor in node.inputs])
        values[node.output.name] = computed
        if node.output.name in emulated:
            real = np.asarray(emulated[node.output.name]).reshape(computed.shape)
            if node.output.unrounded:
                values[node.output.name] = real
                continue
            theirs = np.rint(real / node.output.scale) + node.output.zero_point
            apart = np.abs(theirs - computed)
            found[node.name] = (float(np.mean(apart > 0)), int(apart.max()))
            values[node.output.name] = np.clip(theirs, -128, 127).astype(np.int8)
    return found


def check_layers(model: IntegerModel, qat_model: Any, frames: Frames) -> None:
    """Raise ``ModelError`` naming the first layer whose integers are not what the QAT model emulates."""
    for name, (share, steps) in compare_layers(model, qat_model, frames).items():
        allowed = _REAL_FLIPS if name in model.kept_float else _FLIPS
        if share > allowed or steps > 1:
            raise ModelError(
                f"layer {name!r} is off what QAT emulates in {share:.2g} of its values by up to {steps} steps",
                hint=f"rounding explains {allowed:.0e} of them, by one step",
            )
