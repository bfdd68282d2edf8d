"""Scale the channels between two layers of a float network towards the widest of them; its answers stay the same.

The layer that writes a channel gets a factor, and the layer that reads it the inverse (``channel_factors``). Between
the two may stand operations that pass a positive factor on: a ReLU, a ReLU6 up to its ceiling, pooling, padding with
zeros. A swish does not, and neither does a sum with another value: such layers are left as they are, with the reason.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx

from ..contract import FrameArray
from .channel_factors import even_factors
from .float_body import PIXELS, FloatBody, pads_evenly
from .graph import OWN, Graph, read_attribute
from .head import pooling_layout
from .quantised_nodes import layers_of, weight_axis
from .sessions import open_session, with_outputs

__all__ = ["Evening", "LayerPair", "even_channels", "find_pairs"]

Factors = npt.NDArray[np.float64]
_BATCH = 8
# Operations that pass on a positive factor of each channel, whatever their attributes.
_PASSING = (
    "AveragePool", "Dropout", "GlobalAveragePool", "GlobalMaxPool", "Identity", "LeakyRelu", "MaxPool", "Relu",
)  # fmt: skip
_FLATTENING = ("Flatten", "Reshape", "Squeeze")
_ACTIVATIONS = ("Clip", "LeakyRelu", "Relu")
# Half of the way to the widest channel loses least (docs/log/2026-12.md): the whole way leaves the weights that read
# the channels few steps, and no channel room for values that the frames did not show.
_WAY, _MOST = 0.5, 8.0


@dataclass(frozen=True)
class LayerPair:
    """Two layers with weights, and the values between them.

    Attributes:
        writer: The name of the layer that computes the channels.
        reader: The name of the layer that reads the channels, and nothing else does.
        value: The name of the value that is rounded: the one behind the last activation, or the writer's output.
        between: The names of all values from the writer to the reader.
        ceiling: The largest value that an operation between them lets through; None without one.
    """

    writer: str
    reader: str
    value: str
    between: tuple[str, ...]
    ceiling: float | None = None


@dataclass(frozen=True)
class Evening:
    """A network with evened channels.

    Attributes:
        body: The network; the given one if no channel was scaled.
        factors: The largest factor of each layer whose channels were scaled, by the layer's name.
        skipped: Why the channels of the other layers were left alone, by the layer's name.
    """

    body: FloatBody
    factors: Mapping[str, float]
    skipped: Mapping[str, str]


def even_channels(body: FloatBody, frames: FrameArray) -> Evening:
    """Return the network with the channels between its layers scaled half of the way to the widest ones.

    Its answers are the same within float rounding. The exception is a frame on which a channel exceeds its largest
    value on ``frames`` by more than a quarter, where a ceiling then cuts it.

    Args:
        body: The float network.
        frames: Frames on which the reach of channels is measured, uint8 RGB (N, size, size, 3).
    """
    pairs, skipped = find_pairs(body)
    reach = _measure_reach(body, [pair.value for pair in pairs], frames)
    proto = onnx.ModelProto()
    proto.CopyFrom(body.proto)
    graph, pooled, scaled = Graph(proto), body.pooled, {}
    by_name = {node.name: node for node in layers_of(graph)}
    for pair in pairs:
        writer, reader = by_name[pair.writer], by_name[pair.reader]
        factors = even_factors(reach[pair.value], ceiling=pair.ceiling, most=_MOST, way=_WAY)
        if not (factors > 1).any():
            continue
        _scale_outputs(graph, writer, factors)
        _scale_inputs(graph, reader, 1 / factors)
        scaled[pair.writer] = float(factors.max())
        if pooled is not None and pooled.maps in pair.between:
            weights = np.asarray(pooled.weights / factors[:, None], np.float32)
            pooled = dataclasses.replace(pooled, weights=weights)
    if not scaled:
        return Evening(body, scaled, skipped)
    graph.drop_unused()
    return Evening(dataclasses.replace(body, proto=proto, pooled=pooled), scaled, skipped)


def find_pairs(body: FloatBody) -> tuple[list[LayerPair], dict[str, str]]:
    """Return the pairs of layers between which channels can be scaled, and why the other layers have none."""
    graph = Graph(body.proto)
    layers = layers_of(graph)
    found, skipped = [], {}
    for layer in layers:
        # The values that layers of the head write stay in float, and so does the product of a MatMul.
        if layer.name in body.cheap or layer.op_type == "MatMul":
            continue
        pair = _follow(graph, layer, {node.name for node in layers})
        if isinstance(pair, LayerPair):
            found.append(pair)
        else:
            skipped[layer.name] = pair
    return found, skipped


def _follow(graph: Graph, writer: onnx.NodeProto, layers: set[str]) -> LayerPair | str:
    """Follow the channels of a layer to the layer that reads them; return the reason if there is none."""
    at = value = writer.output[0]
    between, ceiling, flat = [at], None, writer.op_type == "Gemm"
    while (reader := graph.sole_reader(at)) is not None:
        if reader.name in layers and reader.input[0] == at:
            if flat == (reader.op_type == "Conv"):
                break
            return LayerPair(writer.name, reader.name, value, tuple(between), ceiling)
        if not _passes(graph, reader, at):
            break
        flat = flat or _flattens(reader)
        at = reader.output[0]
        between.append(at)
        if reader.op_type in _ACTIVATIONS:
            value = at
            ceiling = min(
                (each for each in (ceiling, _ceiling(graph, reader)) if each is not None), default=None
            )
    readers = graph.readers.get(at, [])
    named = " and ".join(f"{node.name} ({node.op_type})" for node in readers[:3])
    return f"its channels are read by {named}" if readers else "its channels are an output"


def _passes(graph: Graph, node: onnx.NodeProto, given: str) -> bool:
    """Return whether a positive factor of each channel of ``given`` passes through a node unchanged."""
    if node.input[0] != given:
        return False
    if node.op_type == "Clip":
        unbounded = len(node.input) < 3 or not node.input[2]
        return _bound(graph, node, 1) == 0 and (unbounded or _ceiling(graph, node) is not None)
    if node.op_type == "Pad":
        pads = graph.constant(node.input[1])
        beside = pads is not None and len(pads) == 8 and not pads[[0, 1, 4, 5]].any()
        return beside and pads_evenly(graph, node)
    if node.op_type in _FLATTENING:
        return graph.has_one_position(given) and _leaves_channels(graph, node)
    return node.op_type in _PASSING or pooling_layout(graph, node) == "nchw"


def _leaves_channels(graph: Graph, node: onnx.NodeProto) -> bool:
    """Return whether a node makes (N, channels) of (N, channels, 1, 1)."""
    if node.op_type == "Flatten":
        return bool(read_attribute(node, "axis", 1) == 1)
    shape = graph.constant(node.input[1]) if len(node.input) > 1 else None
    # The shape of a Reshape, or the axes of a Squeeze.
    return shape is not None and len(shape) == 2


def _flattens(node: onnx.NodeProto) -> bool:
    """Return whether a node that passes channels on leaves (N, channels)."""
    means = node.op_type == "ReduceMean" and not read_attribute(node, "keepdims", 1)
    return node.op_type in _FLATTENING or means


def _bound(graph: Graph, clip: onnx.NodeProto, at: int) -> float | None:
    """Return the lower (1) or upper (2) bound of a Clip; None if it has none, or computes it."""
    values = graph.constant(clip.input[at]) if len(clip.input) > at and clip.input[at] else None
    return None if values is None or values.size != 1 else float(values.reshape(-1)[0])


def _ceiling(graph: Graph, node: onnx.NodeProto) -> float | None:
    """Return the largest value that an activation lets through; None if it has no ceiling."""
    return _bound(graph, node, 2) if node.op_type == "Clip" else None


def _measure_reach(body: FloatBody, names: Sequence[str], frames: FrameArray) -> dict[str, Factors]:
    """Return the largest magnitude of each channel of each value, float64 (channels,), by the value's name."""
    if not names:
        return {}
    session = open_session(with_outputs(body.proto, *names))
    reach: dict[str, Factors] = {}
    for start in range(0, len(frames), _BATCH):
        answers = session.run(list(names), {PIXELS: body.entry.apply(frames[start : start + _BATCH])})
        for name, values in zip(names, answers, strict=True):
            largest = np.abs(values).max(axis=(0, *range(2, values.ndim))).astype(np.float64)
            reach[name] = np.maximum(reach.get(name, 0.0), largest)
    return reach


def _scale_outputs(graph: Graph, layer: onnx.NodeProto, factors: Factors) -> None:
    """Multiply the outputs of a layer with a factor for each channel."""
    weights = graph.constant(layer.input[1])
    assert weights is not None  # ``layers_of`` chose the layer
    sides = [1] * weights.ndim
    sides[weight_axis(layer)] = -1
    _set(graph, layer, 1, weights * factors.reshape(sides))
    bias = graph.constant(layer.input[2]) if len(layer.input) > 2 and layer.input[2] else None
    if bias is not None:
        _set(graph, layer, 2, bias * factors)


def _scale_inputs(graph: Graph, layer: onnx.NodeProto, factors: Factors) -> None:
    """Multiply the weights that read each channel with its factor."""
    weights = graph.constant(layer.input[1])
    assert weights is not None  # ``layers_of`` chose the layer
    if layer.op_type != "Conv":
        _set(graph, layer, 1, weights * (factors[None, :] if weight_axis(layer) == 0 else factors[:, None]))
        return
    groups = int(read_attribute(layer, "group", 1))
    each = np.repeat(factors.reshape(groups, -1), len(weights) // groups, axis=0)
    _set(graph, layer, 1, weights * each[:, :, None, None])


def _set(graph: Graph, layer: onnx.NodeProto, at: int, values: npt.NDArray[np.floating]) -> None:
    """Give a layer a constant of its own: other nodes may read the one that it had."""
    name = f"{OWN}evened/{layer.name}/{at}"
    graph.set_constant(name, np.asarray(values, np.float32))
    layer.input[at] = name
