"""Read the last operations of a classifier: what its output means, and whether activation maps follow from them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx

from .facts import Layout, OutputKind
from .graph import Graph, read_attribute

__all__ = ["Head", "PooledHead", "pooling_layout", "read_head"]

Floats = npt.NDArray[np.float32]
# Operations behind the last one that leave the values as they are.
_KEEPING = ("Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Dropout")
_MEANINGS: dict[str, OutputKind] = {
    "Softmax": "probabilities",
    "Sigmoid": "sigmoid",
    # The logarithm of a softmax differs from the logits by a number that is the same for all labels.
    "LogSoftmax": "logits",
    "Gemm": "logits",
    "MatMul": "logits",
    "Add": "logits",
    "Conv": "logits",
}


@dataclass(frozen=True)
class PooledHead:
    """Global average pooling and one dense layer at the end of a network.

    Attributes:
        maps: The value before pooling, rank 4.
        layout: The order of its axes.
        weights: The dense weights, float32 (channels, labels).
    """

    maps: str
    layout: Layout
    weights: Floats


@dataclass(frozen=True)
class Head:
    """The end of a classifier.

    Attributes:
        node: The name of the operation that gives the output its meaning.
        kind: Its operator.
        meaning: What the output is, by that operator; None if the operator says nothing.
        logits: The value that holds the logits; None where the graph has none.
        pooled: How the logits come about, if by pooling and one dense layer.
        classifier: The names of the nodes from pooling to the logits, which stay in float.
    """

    node: str
    kind: str
    meaning: OutputKind | None
    logits: str | None
    pooled: PooledHead | None = None
    classifier: tuple[str, ...] = ()


def read_head(graph: Graph, output: str) -> Head:
    """Read the end of a graph, from its output back to the pooling."""
    name = _behind(graph, output, _KEEPING)
    node = graph.makers.get(name)
    if node is None:
        return Head(output, "input", None, None)
    meaning = _MEANINGS.get(node.op_type)
    axis = read_attribute(node, "axis", -1)
    if node.op_type in ("Softmax", "LogSoftmax") and axis not in (-1, 1):
        meaning = None
    if meaning is None:
        return Head(node.name or name, node.op_type, None, None)
    activation = node.op_type in ("Softmax", "LogSoftmax", "Sigmoid")
    logits = node.input[0] if activation else output
    pooled, names = _pooled(graph, _behind(graph, logits, _KEEPING))
    return Head(node.name or name, node.op_type, meaning, logits, pooled, names)


def _behind(graph: Graph, name: str, kinds: tuple[str, ...]) -> str:
    """Follow a value back over operations of these kinds."""
    while (node := graph.makers.get(name)) is not None and node.op_type in kinds:
        name = node.input[0]
    return name


def _pooled(graph: Graph, logits: str) -> tuple[PooledHead | None, tuple[str, ...]]:
    """Return pooling and dense layer, and the names of all nodes from the pooling on."""
    found = _dense(graph, logits)
    if found is None:
        last = graph.makers.get(logits)
        # A convolution of pooled features is a dense layer too, but no map follows from it.
        return None, (last.name,) if last is not None and last.op_type == "Conv" else ()
    given, weights, nodes = found
    while (node := graph.makers.get(given)) is not None and node.op_type in _KEEPING:
        nodes.append(node)
        given = node.input[0]
    names = tuple(each.name for each in nodes)
    if node is None:
        return None, names
    layout = pooling_layout(graph, node)
    if layout is None:
        return None, names
    return PooledHead(node.input[0], layout, weights), (*names, node.name)


def _dense(graph: Graph, logits: str) -> tuple[str, Floats, list[onnx.NodeProto]] | None:
    """Return the input, the weights (channels, labels) and the nodes of a dense layer."""
    node = graph.makers.get(logits)
    nodes = []
    if node is not None and node.op_type == "Add":
        nodes.append(node)
        inner = [name for name in node.input if not graph.is_constant(name)]
        node = graph.makers.get(inner[0]) if len(inner) == 1 else None
    if node is None or node.op_type not in ("Gemm", "MatMul"):
        return None
    weights = graph.constant(node.input[1])
    plain = read_attribute(node, "alpha", 1.0) == 1 and not read_attribute(node, "transA", 0)
    if weights is None or weights.ndim != 2 or weights.dtype != np.float32 or not plain:
        return None
    turned = node.op_type == "Gemm" and read_attribute(node, "transB", 0)
    nodes.append(node)
    return node.input[0], np.asarray(weights.T if turned else weights, np.float32), nodes


def pooling_layout(graph: Graph, node: onnx.NodeProto) -> Layout | None:
    """Return the layout of what a node pools over all positions; None if it pools otherwise."""
    if node.op_type == "GlobalAveragePool":
        return "nchw"
    if node.op_type != "ReduceMean":
        return None
    axes = read_attribute(node, "axes")
    if axes is None and len(node.input) > 1:
        axes = graph.constant(node.input[1])
    found = sorted(int(axis) % 4 for axis in axes) if axes is not None else []
    return "nchw" if found == [2, 3] else "nhwc" if found == [1, 2] else None
