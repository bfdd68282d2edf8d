"""Choose the operations of a network that compute in 8 bits.

Layers with constant weights always do, unless they are kept in float. Operations between them do where their inputs
come in 8 bits and a reader wants 8 bits; a quantiser on each side of a lone operation costs more than it saves.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx

from .graph import Graph, read_attribute

__all__ = ["layers_of", "quantised_nodes", "weight_axis"]

# Operators that onnxruntime computes in 8 bits on the CPU, or that only move values.
_BETWEEN = {
    "Add", "Mul", "Sigmoid", "LeakyRelu", "Relu", "Clip", "GlobalAveragePool", "AveragePool", "MaxPool", "Concat",
    "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Pad", "Slice", "Split",
}  # fmt: skip
_LAYERS = ("Conv", "Gemm", "MatMul")


def weight_axis(node: onnx.NodeProto) -> int:
    """Return the axis of the output channels in the weights of a layer."""
    if node.op_type == "Conv":
        return 0
    return 0 if node.op_type == "Gemm" and read_attribute(node, "transB", 0) else 1


def layers_of(graph: Graph) -> list[onnx.NodeProto]:
    """Return the layers with constant weights that can be quantised, in order."""
    return [node for node in graph.nodes if _is_layer(graph, node)]


def _is_layer(graph: Graph, node: onnx.NodeProto) -> bool:
    if node.op_type not in _LAYERS or len(node.input) < 2:
        return False
    weights = graph.constant(node.input[1])
    if weights is None or weights.dtype != np.float32 or weights.ndim not in (2, 4):
        return False
    if graph.is_constant(node.input[0]):
        return False
    biased = len(node.input) > 2 and bool(node.input[2])
    if biased and graph.constant(node.input[2]) is None:
        return False
    plain = read_attribute(node, "alpha", 1.0) == 1 and read_attribute(node, "beta", 1.0) == 1
    return plain and not read_attribute(node, "transA", 0)


def quantised_nodes(graph: Graph, kept: Collection[str], *, readers: Collection[str] = ()) -> list[str]:
    """Return the names of the nodes to quantise, in order.

    Args:
        graph: The float network.
        kept: The names of nodes that stay in float.
        readers: The names of those among ``kept`` whose input comes in 8 bits all the same, so that what they pool is
            rounded once.
    """
    layers = {node.name for node in layers_of(graph)} - set(kept)
    chosen, small = set(layers), set()
    for node in graph.nodes:
        if node.name in layers:
            # The result of a MatMul stays in float: normalisation and attention read it.
            small |= set(node.output) if node.op_type == "Conv" else set()
        elif node.op_type in _BETWEEN and node.name not in kept and _comes_small(graph, node, small):
            chosen.add(node.name)
            small |= set(node.output)
    for node in reversed(graph.nodes):
        if node.name in chosen - layers and not _wanted_small(graph, node, chosen | set(readers)):
            chosen.discard(node.name)
    return [node.name for node in graph.nodes if node.name in chosen]


def _comes_small(graph: Graph, node: onnx.NodeProto, small: Collection[str]) -> bool:
    """Return whether all values that a node computes with come in 8 bits."""
    values = node.input if node.op_type in ("Add", "Mul", "Concat") else node.input[:1]
    if not any(name in small for name in values):
        return False
    # The gates of squeeze-and-excitation are computed in float and rounded for the product.
    return all(
        name in small or graph.is_constant(name) or graph.has_one_position(name) for name in values if name
    )


def _wanted_small(graph: Graph, node: onnx.NodeProto, chosen: Collection[str]) -> bool:
    return any(reader.name in chosen for name in node.output for reader in graph.readers.get(name, []))
