"""What an INT8 model answers on a CPU without VNNI, emulated: sums of two products that saturate in 16 bits.

There onnxruntime's MLAS and oneDNN multiply with vpmaddubsw: adjacent pairs of u8 activations and s8 weights
are multiplied and added in 16 bits with saturation, and only then widened (onnxruntime issue 14642). The
activations are the raw u8, zero point and all; the zero point's share is taken off the 32-bit sum later.
Depthwise kernels widen first. A model exported saturation-safe answers here as it does everywhere;
``saturations`` shows where another one would not.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..int8 import IntegerModel, IntegerNode, Integers, Kernel, compute_node, round_sums
from ..runners import Frames

__all__ = ["compute_saturating", "saturations"]

_LOW, _HIGH = -(2**15), 2**15 - 1


def compute_saturating(model: IntegerModel, frames: Frames) -> dict[str, Integers]:
    """Every activation by name, s8 (N, h, w, channels), from uint8 frames (N, s, s, 3)."""
    values = {model.pixels.name: (frames.astype(np.int16) - 128).astype(np.int8)}
    for node in model.nodes:
        given = [values[tensor.name] for tensor in node.inputs]
        if node.kind == "conv" and node.kernel is not None:
            sums, _ = _saturating_sums(node, node.kernel, given[0])
            values[node.output.name] = round_sums(node, node.kernel, sums)
        else:
            values[node.output.name] = compute_node(node, given)
    return values


def saturations(model: IntegerModel, frames: Frames) -> dict[str, int]:
    """How many sums of two products saturate in each convolution, given exact inputs."""
    values = {model.pixels.name: (frames.astype(np.int16) - 128).astype(np.int8)}
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
    """Sums less the zero point's share, (N, h, w, out), and how many of the pairs saturated."""
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
    """The raw u8 values under the kernel at each output position, (N, h, w, rows * columns * channels)."""
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
