"""Quantise a float network with onnxruntime's quantiser, with our choice of ranges and of weight scales."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import onnx

from .activation_ranges import Range
from .float_body import PIXELS, FloatBody
from .graph import Graph
from .layer_weights import LayerWeights
from .quantised_nodes import layers_of, quantised_nodes

__all__ = ["activations_of", "quantise_body"]

# The scale and zero point of each channel of a value, by the value's name.
_Overrides = dict[str, list[dict[str, Any]]]


def activations_of(body: FloatBody) -> list[str]:
    """Return the names of the activations whose ranges may be needed."""
    graph = Graph(body.proto)
    names = set(quantised_nodes(graph, body.cheap, readers=body.cheap))
    found: dict[str, None] = {}
    for node in graph.nodes:
        if node.name in names:
            values = node.input if node.op_type in ("Add", "Mul", "Concat") else node.input[:1]
            found.update(dict.fromkeys(name for name in values if not graph.is_constant(name)))
            found.update(dict.fromkeys(node.output))
    return list(found)


def quantise_body(
    body: FloatBody,
    ranges: Mapping[str, Range],
    *,
    kept: Collection[str] = (),
    saturation_safe: bool,
    weights: Mapping[str, npt.NDArray[np.int8]] = MappingProxyType({}),
) -> onnx.ModelProto:
    """Return the network in 8 bits (QDQ): U8 activations, S8 weights with a scale for each channel.

    Args:
        body: The float network.
        ranges: The smallest and largest value of each activation (``activations_of``).
        kept: The names of layers to keep in float.
        saturation_safe: Widen the scales of weights so that no sum of two products overflows 16 bits
            (``train.qat.weight_limits``).
        weights: The integers of the weights of layers, by the layer's name (``weight_rounding``); those of others are
            the nearest ones.
    """
    proto = onnx.shape_inference.infer_shapes(body.proto)
    graph = Graph(proto)
    names = quantised_nodes(graph, {*kept, *body.cheap}, readers=body.cheap)
    overrides = _settle_weights(graph, names, saturation_safe, weights)
    if (zero := body.entry.zero_point) is not None and PIXELS in ranges:
        scale = np.array(body.entry.gain[0], np.float32)
        overrides[PIXELS] = [{"scale": scale, "zero_point": np.array(zero, np.uint8)}]
    return _run_quantiser(proto, names, ranges, overrides)


def _settle_weights(
    graph: Graph, names: Collection[str], saturation_safe: bool, weights: Mapping[str, npt.NDArray[np.int8]]
) -> _Overrides:
    """Give each layer to quantise constants of its own, rounded where integers are given, and return their scales."""
    overrides: _Overrides = {}
    for node in layers_of(graph):
        if node.name not in names:
            continue
        layer = LayerWeights.of(graph, node, saturation_safe)
        _own_constants(graph, node)
        if node.name in weights:
            graph.set_constant(f"rounded/{node.name}", layer.dequantised(weights[node.name]))
            node.input[1] = f"rounded/{node.name}"
        overrides[node.input[1]] = layer.overrides()
    return overrides


def _run_quantiser(
    proto: onnx.ModelProto, names: list[str], ranges: Mapping[str, Range], overrides: _Overrides
) -> onnx.ModelProto:
    """Quantise the named nodes with onnxruntime's quantiser; ``proto`` is changed."""
    from onnxruntime.quantization import CalibrationMethod, QuantType
    from onnxruntime.quantization.calibrate import TensorData, TensorsData
    from onnxruntime.quantization.onnx_model import ONNXModel
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
    from onnxruntime.quantization.quant_utils import add_infer_metadata

    found = {
        name: TensorData(lowest=np.array(low, np.float32), highest=np.array(high, np.float32))
        for name, (low, high) in ranges.items()
    }
    add_infer_metadata(proto)
    with _errors_only():
        quantiser = QDQQuantizer(
            proto, True, False, QuantType.QInt8, QuantType.QUInt8, TensorsData(CalibrationMethod.MinMax, found),
            names, [], sorted({node.op_type for node in proto.graph.node}),
            {
                "TensorQuantOverrides": overrides, "OpTypesToExcludeOutputQuantization": ["MatMul", "Gemm"],
                "MatMulConstBOnly": True, "WeightSymmetric": True, "ActivationSymmetric": False,
            },
        )  # fmt: skip
        made = ONNXModel(quantiser.quantize_model())
        made.topological_sort()
    return cast(onnx.ModelProto, made.model)


@contextmanager
def _errors_only() -> Iterator[None]:
    """Let the root logger, which the quantiser writes to, pass on errors alone."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _own_constants(graph: Graph, node: onnx.NodeProto) -> None:
    """Give a layer copies of its weights and bias where other nodes read them too: each layer has its own scales."""
    for at, name in enumerate(node.input):
        values = graph.constant(name) if at and name and len(graph.readers[name]) > 1 else None
        if values is not None:
            graph.set_constant(f"own/{node.name}/{at}", values)
            node.input[at] = f"own/{node.name}/{at}"
