"""Emulate what an INT8 model answers on a CPU without VNNI, where sums of two products saturate in 16 bits.

On such a CPU, onnxruntime's MLAS and oneDNN multiply with vpmaddubsw: it multiplies adjacent pairs of u8 activations
and s8 weights, adds the two products in 16 bits with saturation, and widens the sum only then (onnxruntime issue
14642).
The activations are the raw u8 with their zero point; its share is subtracted from the 32-bit sum later. Depthwise
kernels widen first and cannot saturate.

A model exported saturation-safe gives the same answers here as elsewhere. For other models ``saturations`` counts the
sums that saturate.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..contract import FrameArray
from ..int8 import (
    IntegerModel,
    IntegerNode,
    Integers,
    Kernel,
    compute_node,
    quantize_pixels,
    round_sums,
)

__all__ = ["compute_saturating", "saturations"]

_LOW, _HIGH = -(2**15), 2**15 - 1


def compute_saturating(model: IntegerModel, frames: FrameArray) -> dict[str, Integers]:
    """Compute every activation with sums that saturate.

    Args:
        model: The integer model.
        frames: uint8 RGB (N, size, size, 3).

    Returns:
        The activations by name, s8 (N, h, w, channels).
    """
    values = {model.pixels.name: quantize_pixels(frames)}
    for node in model.nodes:
        given = [values[tensor.name] for tensor in node.inputs]
        if node.kind == "conv" and node.kernel is not None:
            sums, _ = _saturating_sums(node, node.kernel, given[0])
            values[node.output.name] = round_sums(node, node.kernel, sums)
        else:
            values[node.output.name] = compute_node(node, given)
    return values


def saturations(model: IntegerModel, frames: FrameArray) -> dict[str, int]:
    """Count the sums of two products that saturate in each convolution, given exact inputs.

    Args:
        model: The integer model.
        frames: uint8 RGB (N, size, size, 3).

    Returns:
        The counts over all frames, by the convolution's name.
    """
    values = {model.pixels.name: quantize_pixels(frames)}
    found = {}
    for node in model.nodes:
        given = [values[tensor.name] for tensor in node.inputs]
        if node.kind == "conv" and node.kernel is not None:
            found[node.name] = _saturating_sums(node, node.kernel, given[0])[1]
        values[node.output.name] = compute_node(node, given)
    return found


def _saturating_sums(
    node: IntegerNode, kernel: Kernel, values: Integers
) -> tuple[npt.NDArray[np.float64], int]:
    """Return the sums less the zero point's share, (N, h, w, out), and how many pairs saturated."""
    weights = kernel.weights.reshape(-1, len(kernel.scales)).astype(np.int32)
    columns = _unroll(node, values)
    if len(weights) % 2:
        weights = np.pad(weights, ((0, 1), (0, 0)))
        columns = np.pad(columns, ((0, 0), (0, 0), (0, 0), (0, 1)))
    sums, count = [], 0
    for picture in columns:
        rows = picture.reshape(-1, picture.shape[-1]).astype(np.int32)
        total = np.zeros((len(rows), weights.shape[1]), np.int64)
        for first in range(0, len(weights), 2):
            pair = rows[:, first : first + 2] @ weights[first : first + 2]
            held = np.clip(pair, _LOW, _HIGH)
            count += int(np.count_nonzero(held != pair))
            total += held
        sums.append(total.reshape(*picture.shape[:2], -1))
    offset = (node.inputs[0].zero_point + 128) * weights.sum(axis=0)
    return np.asarray(np.stack(sums) - offset, np.float64), count


def _unroll(node: IntegerNode, values: Integers) -> npt.NDArray[np.int16]:
    """Return the raw u8 values under the kernel at each output position, (N, h, w, rows * columns * channels)."""
    raw = values.astype(np.int16) + 128
    top, left, bottom, right = node.pads()
    outside = node.inputs[0].zero_point + 128
    raw = np.pad(raw, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=outside)
    height, width, _ = node.output.shape
    down, across = node.strides
    parts = [
        raw[:, row : row + height * down : down, column : column + width * across : across][
            :, :height, :width
        ]
        for row in range(node.window[0])
        for column in range(node.window[1])
    ]
    return np.concatenate(parts, axis=-1)
