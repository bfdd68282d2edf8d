"""Put the contract around a network: uint8 frames in; probabilities, logits and, where there are any, features out."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from capsule_edge.runtime.inference import METADATA_KEY, ModelSpec

from .float_body import LOGITS, PIXELS, FloatBody
from .graph import OWN, Graph

__all__ = ["build_file"]

FRAMES = "frames"


def build_file(
    body: FloatBody, spec: ModelSpec, *, quantised: onnx.ModelProto | None = None
) -> onnx.ModelProto:
    """Build the model file.

    Args:
        body: The float network.
        spec: The ModelSpec to write into the file. Its temperature calibrates the probabilities.
        quantised: The network in 8 bits, with the inputs and outputs of ``body.proto``; None builds the FP32 file.

    Returns:
        The model. Input: ``frames``, uint8 (N, size, size, 3). Outputs, float32: ``probabilities`` and ``logits``
        (N, labels), and ``features`` (N, h, w, labels) if the network ends in pooling and one dense layer.
    """
    proto = onnx.ModelProto()
    proto.CopyFrom(body.proto if quantised is None else quantised)
    graph = Graph(proto)
    graph.prepend(_entry_nodes(graph, body))
    _add_outputs(graph, body, spec)
    size, labels = spec.input.size, len(spec.labels)
    made, value = proto.graph, helper.make_tensor_value_info
    del made.input[:], made.output[:], made.value_info[:]
    made.input.append(value(FRAMES, TensorProto.UINT8, ["N", size, size, 3]))
    for name in ("probabilities", "logits"):
        made.output.append(value(name, TensorProto.FLOAT, ["N", labels]))
    if body.pooled is not None and body.map_sides is not None:
        made.output.append(value("features", TensorProto.FLOAT, ["N", *body.map_sides, labels]))
    graph.drop_unused()
    made.name = spec.name
    proto.producer_name, proto.producer_version = "capsule-edge", ""
    helper.set_model_props(proto, {METADATA_KEY: spec.to_json()})
    onnx.checker.check_model(proto)
    return proto


def _entry_nodes(graph: Graph, body: FloatBody) -> list[onnx.NodeProto]:
    """Return the operations from frames to the scaled pixels, or to their 8-bit form where that is exact."""
    entry, given, nodes = body.entry, FRAMES, []

    def add(kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        nodes.append(
            helper.make_node(kind, inputs, [output], name=OWN + output.removeprefix(OWN), **attributes)
        )
        return output

    def constant(name: str, values: Any) -> str:
        graph.set_constant(f"entry/{name}", values)
        return f"entry/{name}"

    if entry.reversed:
        order = constant("blue_first", np.array([2, 1, 0], np.int64))
        given = add("Gather", [given, order], "entry/reversed", axis=3)
    if entry.layout == "nchw":
        # While it is still uint8, a quarter of the bytes.
        given = add("Transpose", [given], "entry/nchw", perm=[0, 3, 1, 2])
    if entry.marked:
        pads = constant("pads", np.array([0, 0, 0, 0, 0, 1, 0, 0], np.int64))
        given = add("Pad", [given, pads, constant("inside", np.uint8(255))], "entry/marked", mode="constant")
    if (bits := _quantizer_of_pixels(graph, body)) is not None:
        graph.rename_input(bits, given)
        return nodes
    real = add("Cast", [given], "entry/real", to=TensorProto.FLOAT)
    sides = (3, 1, 1) if entry.layout == "nchw" else (3,)
    zero = entry.zero_point
    if zero is not None:
        # The difference is a whole number, so only the product rounds.
        real = add("Sub", [real, constant("zero", np.float32(zero))], "entry/centred")
        add("Mul", [real, constant("gain", np.float32(entry.gain[0]))], PIXELS)
        return nodes
    real = add("Mul", [real, constant("gain", entry.gain.astype(np.float32).reshape(sides))], "entry/scaled")
    add("Add", [real, constant("offset", entry.offset.astype(np.float32).reshape(sides))], PIXELS)
    return nodes


def _quantizer_of_pixels(graph: Graph, body: FloatBody) -> str | None:
    """Return the 8-bit form of the pixels if levels are that form, and nothing else reads the pixels."""
    node = graph.sole_reader(PIXELS)
    if body.entry.zero_point is None or node is None or node.op_type != "QuantizeLinear":
        return None
    graph.set_constant(node.input[1], np.float32(body.entry.gain[0]))
    graph.set_constant(node.input[2], np.uint8(body.entry.zero_point))
    return str(node.output[0])


def _add_outputs(graph: Graph, body: FloatBody, spec: ModelSpec) -> None:
    graph.add("Identity", [LOGITS], "logits")
    graph.set_constant("head/inverse_temperature", np.float32(1 / spec.temperature))
    graph.add("Mul", ["logits", "head/inverse_temperature"], "head/calibrated_logits")
    graph.add("Softmax", ["head/calibrated_logits"], "probabilities", axis=1)
    if body.pooled is None:
        return
    maps = _dequantized(graph, body.pooled.maps)
    weights = body.pooled.weights
    if body.pooled.layout == "nhwc":
        graph.set_constant("head/classifier", weights)
        graph.add("MatMul", [maps, "head/classifier"], "features")
        return
    graph.set_constant("head/classifier", weights.T[:, :, None, None])
    graph.add("Conv", [maps, "head/classifier"], "head/features_nchw", kernel_shape=[1, 1])
    graph.add("Transpose", ["head/features_nchw"], "features", perm=[0, 2, 3, 1])


def _dequantized(graph: Graph, name: str) -> str:
    """Return the value behind quantisation, which pooling reads too; the value itself in a float network."""
    node = next((node for node in graph.readers.get(name, []) if node.op_type == "QuantizeLinear"), None)
    following = graph.sole_reader(node.output[0]) if node is not None else None
    return following.output[0] if following is not None else name
