"""Round the weights of each layer so that its answers change least, instead of each weight to its nearest level.

The error that one rounded weight makes in a layer's answers is taken back by the weights that are rounded after it, as
far as their inputs go together on real frames. Source: Frantar et al., GPTQ: Accurate Post-Training Quantization for
Generative Pre-trained Transformers, ICLR 2023 (there for dense layers; a convolution is one over its patches).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from capsule_edge.train.qat import Pairs

from ..contract import FrameArray
from .float_body import PIXELS, FloatBody
from .graph import Graph, read_attribute
from .layer_weights import LEVELS, LayerWeights
from .quantised_nodes import layers_of
from .sessions import open_session, with_outputs
from .twin_layers import add_twin, rounded_input

__all__ = ["round_weights"]

Matrix = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int8]
_Layer = tuple[onnx.NodeProto, LayerWeights]

_BATCH = 8
# Positions of a layer's map that are taken of each frame, evenly spread.
_POSITIONS = 128
# Layers whose products of inputs are held at the same time: 400 MB.
_MOST_ENTRIES = 50_000_000
# Layers with more inputs keep their nearest weights: their products, inverse and root would take several GB.
_MOST_INPUTS = 6144
# This share of the mean power is added to that of each input, so that few frames are not believed too far.
_DAMPING = 0.01
# Weights that are rounded before the others are corrected together.
_BLOCK = 128


def round_weights(
    body: FloatBody, quantised: onnx.ModelProto, frames: FrameArray, *, saturation_safe: bool
) -> dict[str, Integers]:
    """Return the integers of each quantised layer's weights, in the shape of the weights, by the layer's name.

    Layers of more than 6,144 inputs are left out.

    Args:
        body: The float network.
        quantised: The same network in 8 bits, whose roundings of activations and scales of weights are kept.
        frames: uint8 RGB (N, size, size, 3).
        saturation_safe: Whether sums of two products must not overflow 16 bits (``train.qat.weight_limits``).
    """
    proto = onnx.ModelProto()
    proto.CopyFrom(body.proto)
    shown, small = Graph(proto), Graph(quantised)
    layers = []
    for layer in layers_of(shown):
        weights = LayerWeights.of(shown, layer, saturation_safe)
        if len(weights.flat) <= _MOST_INPUTS and add_twin(shown, small, layer) is not None:
            layers.append((layer, weights))
    shown.refresh()
    found = {}
    for part in _in_parts(layers):
        products = _collect(body, shown, [layer for layer, _ in part], frames)
        for layer, weights in part:
            found[layer.name] = weights.shaped(_round_groups(weights, products[layer.name]))
    return found


def _in_parts(layers: Sequence[_Layer]) -> Iterator[list[_Layer]]:
    """Yield the layers in parts whose products of inputs fit into memory together."""
    part: list[_Layer] = []
    entries = 0
    for layer, weights in layers:
        size = weights.groups * len(weights.flat) ** 2
        if part and entries + size > _MOST_ENTRIES:
            yield part
            part, entries = [], 0
        part.append((layer, weights))
        entries += size
    if part:
        yield part


def _collect(
    body: FloatBody, shown: Graph, layers: Sequence[onnx.NodeProto], frames: FrameArray
) -> Mapping[str, Matrix]:
    """Return the summed products of every two inputs of each layer, (groups, inputs, inputs), by the layer's name."""
    names = [rounded_input(layer) for layer in layers]
    session = open_session(with_outputs(shown.proto, *names), optimise="none")
    sums: dict[str, Any] = {}
    for start in range(0, len(frames), _BATCH):
        answers = session.run(names, {PIXELS: body.entry.apply(frames[start : start + _BATCH])})
        for layer, values in zip(layers, answers, strict=True):
            rows = _patches(shown, layer, values)
            sums[layer.name] = sums.get(layer.name, 0) + np.matmul(rows.transpose(0, 2, 1), rows)
    return {name: np.asarray(total, np.float64) for name, total in sums.items()}


def _patches(graph: Graph, layer: onnx.NodeProto, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return what a layer multiplies with its weights, for some of its positions: (groups, positions, inputs)."""
    if layer.op_type != "Conv":
        rows = values.reshape(-1, values.shape[-1])
        # Not by a step: it would take the same columns of a picture again and again.
        places = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), _POSITIONS * _BATCH)).astype(int))
        return np.ascontiguousarray(rows[None, places])
    weights = graph.constant(layer.input[1])
    assert weights is not None  # ``layers_of`` chose the layer
    groups, kernel = int(read_attribute(layer, "group", 1)), weights.shape[2:]
    strides, dilations = (read_attribute(layer, name, [1, 1]) for name in ("strides", "dilations"))
    reach = [(side - 1) * wide + 1 for side, wide in zip(kernel, dilations, strict=True)]
    padded = np.pad(values, [(0, 0), (0, 0), *_padding(layer, values.shape[2:], reach, strides)])
    views = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=(2, 3))
    views = views[:, :, :: strides[0], :: strides[1], :: dilations[0], :: dilations[1]]
    frames, _, height, width = views.shape[:4]
    places = np.unique(np.linspace(0, height * width - 1, min(_POSITIONS, height * width)).astype(int))
    chosen = views[:, :, places // width, places % width].transpose(0, 2, 1, 3, 4)
    apart = chosen.reshape(frames * len(places), groups, -1)
    return np.ascontiguousarray(apart.transpose(1, 0, 2))


def _padding(
    layer: onnx.NodeProto, sides: Sequence[int], reach: Sequence[int], strides: Sequence[int]
) -> list[tuple[int, int]]:
    """Return the rows and columns that a convolution adds before and behind (ONNX operator Conv)."""
    mode = bytes(read_attribute(layer, "auto_pad", b"NOTSET")).decode()
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        whole = [
            max(0, (-(-side // step) - 1) * step + size - side)
            for side, size, step in zip(sides, reach, strides, strict=True)
        ]
        lower = mode == "SAME_LOWER"
        return [((each + lower) // 2, each - (each + lower) // 2) for each in whole]
    top, left, bottom, right = (
        read_attribute(layer, "pads", [0, 0, 0, 0]) if mode == "NOTSET" else (0, 0, 0, 0)
    )
    return [(top, bottom), (left, right)]


def _round_groups(weights: LayerWeights, products: Matrix) -> Integers:
    """Return the integers (inputs, channels) of a layer whose channels are computed in groups."""
    low, high = _bounds(weights.nearest(), weights.pairs)
    each = weights.flat.shape[1] // weights.groups
    parts = []
    for group in range(weights.groups):
        rows = slice(group * each, (group + 1) * each)
        parts.append(
            _round(weights.flat[:, rows], products[group], weights.scales[rows], low[:, rows], high[:, rows])
        )
    return np.concatenate(parts, axis=1)


def _round(
    weights: npt.NDArray[np.float32], products: Matrix, scales: Matrix, low: Matrix, high: Matrix
) -> Integers:
    """Round weights (inputs, channels) in turn, those of the strongest inputs first."""
    power = np.diagonal(products)
    order = np.argsort(-power, kind="stable")
    damped = products[np.ix_(order, order)]
    damped[np.diag_indices_from(damped)] += _DAMPING * power.mean() + 1e-12
    # Row i says how an error of weight i is taken back by those behind it (Frantar et al., section 3.3, step 3).
    spread = np.linalg.cholesky(np.linalg.inv(damped)).T
    left = np.asarray(weights[order], np.float64) / scales
    low, high = low[order], high[order]
    whole = np.empty_like(left)
    for start in range(0, len(left), _BLOCK):
        end = min(start + _BLOCK, len(left))
        errors = np.empty_like(left[start:end])
        for at in range(start, end):
            whole[at] = np.clip(np.rint(left[at]), low[at], high[at])
            errors[at - start] = (left[at] - whole[at]) / spread[at, at]
            left[at + 1 : end] -= np.outer(spread[at, at + 1 : end], errors[at - start])
        left[end:] -= spread[start:end, end:].T @ errors
    found = np.empty(whole.shape, np.int8)
    found[order] = whole
    return found


def _bounds(nearest: Matrix, pairs: Pairs) -> tuple[Matrix, Matrix]:
    """Return the least and the greatest integer that each weight may become, so that the layer stays as safe as it was.

    Args:
        nearest: The integers (inputs, channels) of plain rounding, which are safe.
        pairs: Which weights may meet in a sum (``train.qat.weight_limits``).
    """
    return -_greatest(np.maximum(-nearest, 0), pairs), _greatest(np.maximum(nearest, 0), pairs)


def _greatest(levels: Matrix, pairs: Pairs) -> Matrix:
    """Return the greatest integers of one sign: of two that may meet, one above the half limits the other one."""
    if pairs == "none" or len(levels) < 2:
        return np.full_like(levels, LEVELS)
    half = LEVELS // 2
    large = np.where(levels > half, levels, 0)
    if pairs == "adjacent":
        beside = np.zeros_like(levels)
        beside[1:] = large[:-1]
        beside[:-1] = np.maximum(beside[:-1], large[1:])
        return np.where(large > 0, levels, np.minimum(half, LEVELS - beside))
    second, first = np.partition(levels, -2, axis=0)[-2:]
    others = np.maximum(second, np.minimum(LEVELS - first, half))
    bounds = np.broadcast_to(others, levels.shape).copy()
    bounds[levels.argmax(axis=0), np.arange(levels.shape[1])] = np.maximum(first, half)
    return bounds
