"""Prepare the float network: joined with the scaling of its input, cut at its logits.

The result is the same for FP32 and INT8. It begins with scaled pixels and ends with logits; the operations before and
behind it are added by ``serving_graph``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, compose, helper

from ..contract import FrameArray
from .facts import Floats, Layout, OutputKind
from .graph import OWN, Graph, read_attribute
from .head import Head, PooledHead, read_head
from .input_chain import InputChain
from .onnx_source import OnnxSource
from .quantised_nodes import weight_axis
from .scaling import Scaling
from .sessions import open_session, with_outputs

__all__ = ["LEAST", "LEAST_REST", "Entry", "FloatBody", "make_body", "mark_inside", "pads_evenly"]

_PREFIX = "net/"
PIXELS, LOGITS = "capsule_edge/scaled_pixels", "capsule_edge/network_logits"
# Scale and zero point of the contract's own scaling, (level - 128) / 128.
_SCALE, _ZERO = 1 / 128, 128
# Where a graph does not hold its logits: the least probability of which a logarithm is taken, and the least rest up to
# 1 that float32 holds.
LEAST, LEAST_REST = float(np.finfo(np.float32).tiny), 2.0**-24
_BATCH = 16


@dataclass(frozen=True)
class Entry:
    """The way from a level of a pixel to the network's first operation: ``gain * level + offset``.

    Attributes:
        gain: The factor of each channel in the order of the network, float64 (3,).
        offset: The summand of each channel, float64 (3,).
        layout: The order of the axes that the network expects.
        reversed: Whether the network expects blue first.
        marked: Whether a fourth channel follows, which has the level 255 everywhere (``mark_inside``).
    """

    gain: npt.NDArray[np.float64]
    offset: npt.NDArray[np.float64]
    layout: Layout
    reversed: bool
    marked: bool = False

    @property
    def zero_point(self) -> int | None:
        """The level that becomes 0, if it is one level for all channels and they share their gain; else None.

        Then the level itself is the 8-bit form of the pixel, and padding with 0 is exact.
        """
        level = -self.offset / self.gain
        same = bool(np.allclose(self.gain, self.gain[0], rtol=1e-6) and np.all(self.gain > 0))
        zero = round(float(level[0]))
        whole = bool(np.allclose(level, zero, rtol=0, atol=1e-3)) and 0 <= zero <= 255
        return zero if same and whole else None

    @property
    def ends(self) -> tuple[float, float]:
        """The smallest and the largest value of a scaled pixel."""
        values = np.stack([self.offset, self.gain * 255 + self.offset])
        return float(values.min()), float(values.max())

    def apply(self, frames: FrameArray) -> Floats:
        """Scale uint8 RGB frames (N, size, size, 3) for the network."""
        ordered = frames[..., ::-1] if self.reversed else frames
        scaled = (ordered * self.gain + self.offset).astype(np.float32)
        if self.marked:
            inside = np.full((*scaled.shape[:-1], 1), 255 * self.gain[0] + self.offset[0], np.float32)
            scaled = np.concatenate([scaled, inside], axis=-1)
        return np.ascontiguousarray(scaled if self.layout == "nhwc" else scaled.transpose(0, 3, 1, 2))


@dataclass(frozen=True)
class FloatBody:
    """A float network from scaled pixels (``PIXELS``) to logits (``LOGITS``).

    Attributes:
        proto: The network.
        entry: How its pixels are scaled.
        pooled: Its last map and dense weights, for activation maps; None if it does not end so.
        cheap: The names of the nodes that stay in float because they cost next to nothing: those from the last pooling
            on, and convolutions of a single position, as in squeeze-and-excitation.
        map_sides: Height and width of the last map; None without ``pooled``.
    """

    proto: onnx.ModelProto
    entry: Entry
    pooled: PooledHead | None
    cheap: tuple[str, ...]
    map_sides: tuple[int, int] | None

    def values(self, frames: FrameArray, name: str = LOGITS) -> Floats:
        """Return a value of the network, the logits by default, for uint8 RGB frames (N, size, size, 3)."""
        run = self.runner(name)
        return np.concatenate([run(frames[at : at + _BATCH]) for at in range(0, len(frames), _BATCH)])

    def runner(self, name: str = LOGITS) -> Callable[[FrameArray], Floats]:
        """Return a function that computes a value of the network, the logits by default, for one batch of frames."""
        session = open_session(with_outputs(self.proto, name))

        def run(frames: FrameArray) -> Floats:
            return np.asarray(session.run([name], {PIXELS: self.entry.apply(frames)})[0])

        return run


def make_body(source: OnnxSource, chain: InputChain, scaling: Scaling, outputs: OutputKind) -> FloatBody:
    """Join a source with its scaling and cut it at its logits.

    Args:
        source: The classifier.
        chain: The first operations of its graph.
        scaling: The scaling of its input.
        outputs: The meaning of its output.
    """
    proto = onnx.ModelProto()
    proto.CopyFrom(source.proto)
    _name_nodes(proto)
    _settle_biases(Graph(proto))
    # Layers keep their names, which users give and reports show.
    compose.add_prefix(proto, _PREFIX, rename_nodes=False, inplace=True)
    graph = Graph(proto)
    gain, offset = chain.gain * scaling.gain, chain.gain * scaling.offset + chain.offset
    start = _PREFIX + chain.end
    entry = _enter(graph, start, Entry(gain, offset, chain.layout, scaling.channels == "bgr"))
    graph.rename_input(start, PIXELS)
    head = read_head(graph, proto.graph.output[0].name)
    _end_in_logits(graph, head, outputs)
    if source.is_single:
        _answer_for_two(graph)
    _set_ends(proto, source, entry.layout)
    graph.drop_unused()
    pooled = head.pooled and _still_there(graph, head.pooled)
    if pooled is not None and source.is_single:
        # The logit of the first label is 0, whatever the maps show.
        pooled = dataclasses.replace(pooled, weights=np.pad(pooled.weights, [(0, 0), (1, 0)]))
    proto = onnx.shape_inference.infer_shapes(proto)
    graph = Graph(proto)
    cheap = [
        node.name for node in graph.nodes if node.op_type == "Conv" and graph.has_one_position(node.output[0])
    ]
    body = FloatBody(proto, entry, pooled, tuple(dict.fromkeys([*head.classifier, *cheap])), None)
    if pooled is None:
        return body
    blank = np.zeros((1, source.size, source.size, 3), np.uint8)
    shape = body.values(blank, pooled.maps).shape
    sides = shape[2:] if pooled.layout == "nchw" else shape[1:3]
    return dataclasses.replace(body, map_sides=(int(sides[0]), int(sides[1])))


def _still_there(graph: Graph, pooled: PooledHead) -> PooledHead | None:
    return pooled if pooled.maps in graph.makers else None


def _name_nodes(proto: onnx.ModelProto) -> None:
    """Give every node a name of its own: layers are kept in float by name."""
    seen: set[str] = set()
    for at, node in enumerate(proto.graph.node):
        if not node.name or node.name in seen:
            node.name = f"{node.op_type}_{at}"
        seen.add(node.name)


def _settle_biases(graph: Graph) -> None:
    """Write biases as vectors, and leave out those that are stated as absent: quantisers expect no other form.

    onnxruntime joins a MatMul and a sum with a bias of (1, labels) to a Gemm, for instance.
    """
    for node in graph.nodes:
        if node.op_type not in ("Conv", "Gemm") or len(node.input) < 3:
            continue
        weights, bias = graph.constant(node.input[1]), graph.constant(node.input[2])
        if not node.input[2]:
            del node.input[2:]
        elif weights is not None and bias is not None:
            count = weights.shape[weight_axis(node)]
            if bias.shape != (count,) and bias.size in (1, count):
                name = f"{OWN}{node.name}/vector"
                graph.set_constant(name, np.broadcast_to(bias.reshape(-1), (count,)))
                node.input[2] = name


def _set_ends(proto: onnx.ModelProto, source: OnnxSource, layout: Layout) -> None:
    side = source.size
    sides: list[int | str] = ["N", 3, side, side] if layout == "nchw" else ["N", side, side, 3]
    del proto.graph.input[:], proto.graph.output[:], proto.graph.value_info[:], proto.metadata_props[:]
    proto.graph.input.append(helper.make_tensor_value_info(PIXELS, TensorProto.FLOAT, sides))
    proto.graph.output.append(helper.make_tensor_value_info(LOGITS, TensorProto.FLOAT, ["N", source.classes]))
    # The newest form that the oldest supported onnxruntime reads.
    proto.ir_version = min(proto.ir_version, 10)


def _enter(graph: Graph, start: str, entry: Entry) -> Entry:
    """Move the order of the colours, and the scaling where it is exact, into the first convolution."""
    convolution = _first_convolution(graph, start)
    if convolution is None or entry.layout != "nchw":
        return entry
    weights = graph.constant(convolution.input[1])
    if weights is None or weights.ndim != 4 or weights.shape[1] != 3:
        return entry
    if entry.reversed:
        weights = weights[:, ::-1]
        _set_weights(graph, convolution, weights, None)
        entry = Entry(entry.gain[::-1], entry.offset[::-1], entry.layout, reversed=False)
    if entry.zero_point is not None or convolution.input[0] != start or _is_padded(convolution):
        return entry
    # Pixels are (level - 128) / 128 from here on, so level = 128 * pixel + 128.
    kept = np.asarray(weights, np.float64)
    shift = (kept * (entry.gain * 128 + entry.offset)[None, :, None, None]).sum(axis=(1, 2, 3))
    scaled = kept * (entry.gain * 128)[None, :, None, None]
    _set_weights(graph, convolution, scaled, shift)
    return Entry(np.full(3, _SCALE), np.full(3, -_ZERO * _SCALE), entry.layout, entry.reversed)


def mark_inside(body: FloatBody) -> FloatBody:
    """Return the network with levels as its input, where padding kept the scaling out of the first convolution.

    Padding adds zeros to scaled pixels, which are no level: ImageNet's means lie between levels and differ by channel.
    A fourth channel of the input, 255 inside the picture and 0 in the padding, carries the summand of the scaling:
    its weights are those of the colours, each times the scaled value of level 128. The results are those of the
    network as it was, and 8-bit pixels need no rounding.
    """
    proto = onnx.ModelProto()
    proto.CopyFrom(body.proto)
    graph, entry = Graph(proto), body.entry
    convolution = _first_convolution(graph, PIXELS)
    weights = graph.constant(convolution.input[1]) if convolution is not None else None
    usable = weights is not None and weights.ndim == 4 and weights.shape[1] == 3 and not entry.reversed
    if (
        convolution is None
        or weights is None
        or not usable
        or entry.layout != "nchw"
        or entry.zero_point is not None
    ):
        return body
    kept = np.asarray(weights, np.float64)
    level = (entry.gain * _ZERO + entry.offset)[None, :, None, None]
    inside = (kept * level).sum(axis=1, keepdims=True) / ((255 - _ZERO) * _SCALE)
    colours = kept * (entry.gain / _SCALE)[None, :, None, None]
    _set_weights(graph, convolution, np.concatenate([colours, inside], axis=1), None)
    graph.drop_unused()
    proto.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 4
    # A Pad behind the input has a channel more too.
    del proto.graph.value_info[:]
    return dataclasses.replace(
        body,
        proto=onnx.shape_inference.infer_shapes(proto),
        entry=Entry(
            np.full(3, _SCALE), np.full(3, -_ZERO * _SCALE), entry.layout, reversed=False, marked=True
        ),
    )


def _first_convolution(graph: Graph, start: str) -> onnx.NodeProto | None:
    """Return the convolution that reads the pixels, directly or behind a Pad that adds zeros or copies."""
    node = graph.sole_reader(start)
    if node is not None and node.op_type == "Pad":
        node = graph.sole_reader(node.output[0]) if pads_evenly(graph, node) else None
    return (
        node
        if node is not None and node.op_type == "Conv" and read_attribute(node, "group", 1) == 1
        else None
    )


def pads_evenly(graph: Graph, pad: onnx.NodeProto) -> bool:
    """Return whether a Pad treats a channel of ones as any other: it copies pixels, or its constant is 0.

    Another constant is one of the scaled pixels, and would be another one of levels.
    """
    if read_attribute(pad, "mode", b"constant") != b"constant" or len(pad.input) < 3 or not pad.input[2]:
        return True
    value = graph.constant(pad.input[2])
    return value is not None and not value.any()


def _is_padded(convolution: onnx.NodeProto) -> bool:
    automatic = read_attribute(convolution, "auto_pad", b"NOTSET") in (b"SAME_UPPER", b"SAME_LOWER")
    return automatic or any(read_attribute(convolution, "pads", ()))


def _set_weights(
    graph: Graph, node: onnx.NodeProto, weights: npt.NDArray[Any], shift: npt.NDArray[np.float64] | None
) -> None:
    """Give a convolution weights of its own, and add ``shift`` to its bias."""
    name = f"capsule_edge/{node.name}"
    graph.set_constant(f"{name}/weights", np.asarray(weights, np.float32))
    node.input[1] = f"{name}/weights"
    if shift is None:
        return
    there = graph.constant(node.input[2]) if len(node.input) > 2 and node.input[2] else 0.0
    graph.set_constant(f"{name}/bias", np.asarray(np.asarray(there, np.float64) + shift, np.float32))
    del node.input[2:]
    node.input.append(f"{name}/bias")


def _end_in_logits(graph: Graph, head: Head, outputs: OutputKind) -> None:
    """End the graph in ``LOGITS``: the value before the last activation, or what the answers imply."""
    if head.logits is not None:
        graph.add("Flatten", [head.logits], LOGITS, axis=1)
        return
    output = graph.proto.graph.output[0].name
    if outputs == "logits":
        graph.add("Flatten", [output], LOGITS, axis=1)
        return
    graph.set_constant("capsule_edge/least", np.float32(LEAST))
    flat = graph.add("Flatten", [output], "capsule_edge/answers", axis=1)
    graph.add("Max", [flat, "capsule_edge/least"], "capsule_edge/positive")
    if outputs == "probabilities":
        graph.add("Log", ["capsule_edge/positive"], LOGITS)
        return
    graph.set_constant("capsule_edge/one", np.float32(1))
    rest = graph.add("Sub", ["capsule_edge/one", flat], "capsule_edge/rest")
    graph.set_constant("capsule_edge/least_rest", np.float32(LEAST_REST))
    graph.add("Max", [rest, "capsule_edge/least_rest"], "capsule_edge/positive_rest")
    graph.add("Div", ["capsule_edge/positive", "capsule_edge/positive_rest"], "capsule_edge/odds")
    graph.add("Log", ["capsule_edge/odds"], LOGITS)


def _answer_for_two(graph: Graph) -> None:
    """Put a logit of 0 before that of a single output: their softmax is 1 - p and p, if p is the logit's sigmoid."""
    one = "capsule_edge/single_logit"
    node = graph.proto.graph.node[-1]
    node.output[list(node.output).index(LOGITS)] = node.name = one
    graph.set_constant("capsule_edge/before", np.array([0, 1, 0, 0], np.int64))
    graph.add("Pad", [one, "capsule_edge/before"], LOGITS, mode="constant")
