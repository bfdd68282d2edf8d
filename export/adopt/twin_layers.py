"""Set the quantised twin of a layer beside it in a float network, to see what the layer alone loses.

The twin gets the same float input, rounds it, and computes with the quantised weights.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from .graph import Graph

__all__ = ["add_twin", "round_output", "rounded_input"]


def add_twin(shown: Graph, small: Graph, layer: onnx.NodeProto) -> str | None:
    """Add the twin of a layer, and return the name of its result; None if the layer is not quantised.

    Args:
        shown: The float network, which gets the twin.
        small: The network in 8 bits.
        layer: The layer, a node of ``shown``.
    """
    found = _twin_of(small, layer)
    if found is None:
        return None
    _, given, weights = found
    name = f"twin/{layer.name}"
    shown.set_constant(f"{name}/weights", weights)
    rounded = _round(shown, small, layer.input[0], given, rounded_input(layer))
    copy = onnx.NodeProto()
    copy.CopyFrom(layer)
    del copy.input[:], copy.output[:]
    copy.input.extend([rounded, f"{name}/weights", *layer.input[2:]])
    copy.output.append(f"{name}/output")
    copy.name = name
    shown.proto.graph.node.append(copy)
    return f"{name}/output"


def rounded_input(layer: onnx.NodeProto) -> str:
    """Return the name of the rounded input of a layer's twin."""
    return f"twin/{layer.name}/input"


def round_output(shown: Graph, small: Graph, layer: onnx.NodeProto, twin: str) -> tuple[str, str]:
    """Round a twin's result as the network in 8 bits does. Return it, and the float value to compare it with."""
    node = next(node for node in small.nodes if node.name == layer.name)
    quantiser = next(
        (each for each in small.readers[node.output[0]] if each.op_type == "QuantizeLinear"), None
    )
    if quantiser is None:
        return twin, layer.output[0]
    # The quantiser takes the place of a ReLU: it names the value behind it.
    return _round(shown, small, twin, quantiser, f"{twin}/rounded"), node.output[0]


def _twin_of(
    small: Graph, layer: onnx.NodeProto
) -> tuple[onnx.NodeProto, onnx.NodeProto, npt.NDArray[Any]] | None:
    """Return a layer's node in the network in 8 bits, what dequantises its input, and its weights."""
    node = next((node for node in small.nodes if node.name == layer.name), None)
    if node is None:
        return None
    given, weights = small.makers.get(node.input[0]), _dequantised_constant(small, node.input[1])
    if weights is None or given is None or given.op_type != "DequantizeLinear":
        return None
    return node, given, weights


def _round(shown: Graph, small: Graph, value: str, node: onnx.NodeProto, name: str) -> str:
    """Quantise and dequantise a value with the scale and zero point of ``node``."""
    parameters = []
    for part, at in (("scale", 1), ("zero", 2)):
        constant = small.constant(node.input[at])
        assert constant is not None  # the quantiser writes constants
        shown.set_constant(f"{name}/{part}", constant)
        parameters.append(f"{name}/{part}")
    shown.add("QuantizeLinear", [value, *parameters], f"{name}/bits")
    return shown.add("DequantizeLinear", [f"{name}/bits", *parameters], name)


def _dequantised_constant(small: Graph, name: str) -> npt.NDArray[Any] | None:
    """Return a quantised constant in float32; None if the value is not one."""
    node = small.makers.get(name)
    values = (
        small.constant(node.input[0]) if node is not None and node.op_type == "DequantizeLinear" else None
    )
    if node is None or values is None:
        return None
    scale = small.constant(node.input[1])
    assert scale is not None  # the quantiser writes constants
    axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
    shape = [1] * values.ndim
    if scale.size > 1:
        shape[axis] = scale.size
    return np.asarray(values.astype(np.float32) * scale.reshape(shape), np.float32)
