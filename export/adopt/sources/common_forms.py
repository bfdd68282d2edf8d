"""Write what Keras computes in many operations as the forms of ONNX that engines and quantisers recognise."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from ..graph import Graph, read_attribute

__all__ = ["join_layer_norms", "straighten_gelus"]


def join_layer_norms(graph: Graph) -> int:
    """Replace the layer normalisations of Keras 3 by LayerNormalization, in place. Return their number.

    Keras computes ``x * s + (shift - mean * s)`` with ``s = scale / sqrt(variance + epsilon)`` over the last axis.
    """
    count = 0
    for root in [node for node in graph.nodes if node.op_type == "Sqrt"]:
        count += _join_layer_norm(graph, root)
    if count:
        graph.refresh()
    return count


def _join_layer_norm(graph: Graph, root: onnx.NodeProto) -> bool:
    found = _variance(graph, root)
    inverse = graph.sole_reader(root.output[0])
    scaled = inverse and inverse.op_type == "Reciprocal" and graph.sole_reader(inverse.output[0])
    if found is None or not inverse or not scaled:
        return False
    x, mean, epsilon = found
    gamma = _vector(graph, scaled, inverse.output[0], "Mul")
    if gamma is None or not _is_last_axis(graph, mean, gamma.ndim):
        return False
    times_x = times_mean = None
    for reader in graph.readers[scaled.output[0]]:
        other = _other(reader, scaled.output[0], "Mul")
        if other == x:
            times_x = reader
        elif other is not None and _is_negated(graph, other, mean.output[0]):
            times_mean = reader
    if times_x is None or times_mean is None:
        return False
    end = graph.sole_reader(times_x.output[0])
    beta = None if end is None else _shift(graph, end, times_x.output[0], times_mean, gamma)
    if end is None or beta is None:
        return False
    names = [f"{end.output[0]}/{part}" for part in ("scale", "shift")]
    for name, values in zip(names, (gamma, beta), strict=True):
        graph.set_constant(name, np.asarray(values, np.float32).reshape(-1))
    joined = helper.make_node(
        "LayerNormalization", [x, *names], list(end.output), name=end.name, axis=-1, epsilon=epsilon
    )
    end.CopyFrom(joined)
    return True


def _shift(
    graph: Graph, end: onnx.NodeProto, scaled: str, times_mean: onnx.NodeProto, gamma: npt.NDArray[np.generic]
) -> npt.NDArray[np.generic] | None:
    """Return what the last sum adds beside the mean: zeros where it adds the mean alone."""
    added = _other(end, scaled, "Add")
    if added == times_mean.output[0]:
        return np.zeros_like(gamma)
    maker = None if added is None else graph.makers.get(added)
    beta = maker and _vector(graph, maker, times_mean.output[0], "Add")
    return beta if beta is not None and beta.size == gamma.size else None


def _variance(graph: Graph, root: onnx.NodeProto) -> tuple[str, onnx.NodeProto, float] | None:
    """Return the value, the node of its mean, and the epsilon of ``sqrt(mean((x - mean)**2) + epsilon)``."""
    added = graph.makers.get(root.input[0])
    if added is None or added.op_type != "Add":
        return None
    epsilon = graph.constant(added.input[1])
    spread = graph.makers.get(added.input[0])
    square = spread and _is_mean(spread) and graph.makers.get(spread.input[0])
    if epsilon is None or epsilon.size != 1 or not square or square.op_type != "Mul":
        return None
    less = graph.makers.get(square.input[0])
    if square.input[0] != square.input[1] or less is None or less.op_type != "Sub":
        return None
    mean = graph.makers.get(less.input[1])
    if mean is None or not _is_mean(mean) or mean.input[0] != less.input[0]:
        return None
    return less.input[0], mean, float(epsilon.reshape(()))


def _is_mean(node: onnx.NodeProto) -> bool:
    return node.op_type in ("GlobalAveragePool", "ReduceMean")


def _is_last_axis(graph: Graph, mean: onnx.NodeProto, rank: int) -> bool:
    """Return whether a mean is that of the last axis of a value of this rank. GlobalAveragePool's axes begin at 2."""
    if mean.op_type == "GlobalAveragePool":
        return rank == 3
    axes = read_attribute(mean, "axes")
    if axes is None and len(mean.input) > 1:
        axes = graph.constant(mean.input[1])
    return bool(read_attribute(mean, "keepdims", 1)) and axes is not None and list(axes) in ([-1], [rank - 1])


def _other(node: onnx.NodeProto, name: str, kind: str) -> str | None:
    """Return the other input of a node of two inputs; None if it is of another kind."""
    if node.op_type != kind or name not in node.input:
        return None
    return str(node.input[1 if node.input[0] == name else 0])


def _vector(graph: Graph, node: onnx.NodeProto, name: str, kind: str) -> npt.NDArray[np.generic] | None:
    """Return the constant that a node joins with ``name``, if it varies over the last axis alone."""
    other = _other(node, name, kind)
    values = None if other is None else graph.constant(other)
    if values is None or values.ndim < 3 or values.size != values.shape[-1]:
        return None
    return values


def _is_negated(graph: Graph, name: str, value: str) -> bool:
    maker = graph.makers.get(name)
    return maker is not None and maker.op_type == "Neg" and maker.input[0] == value


def straighten_gelus(graph: Graph) -> int:
    """Write ``1 - erf(-x / sqrt(2))`` as ``1 + erf(x / sqrt(2))``, in place. Return how many there were.

    The second form is the one that onnxruntime joins with its neighbours to a GELU.
    """
    count = 0
    for node in [node for node in graph.nodes if node.op_type == "Erf"]:
        inner, less = graph.makers.get(node.input[0]), graph.sole_reader(node.output[0])
        if inner is None or less is None or less.op_type != "Sub" or less.input[1] != node.output[0]:
            continue
        negated = graph.makers.get(inner.input[0])
        factor = graph.constant(inner.input[1]) if inner.op_type == "Mul" else None
        if negated is None or negated.op_type != "Neg" or factor is None or factor.size != 1:
            continue
        divisor = f"{inner.output[0]}/divisor"
        graph.set_constant(divisor, np.asarray(1 / factor.reshape(()), np.float32))
        inner.op_type = "Div"
        inner.input[:] = [negated.input[0], divisor]
        less.op_type = "Add"
        less.input[:] = [node.output[0], less.input[0]]
        count += 1
    if count:
        graph.refresh()
    return count
