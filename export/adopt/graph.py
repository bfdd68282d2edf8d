"""Walk and change an ONNX graph: constants by name, the node that makes a value, the nodes that read it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

__all__ = ["OWN", "Graph", "read_attribute"]

OWN = "capsule_edge/"
"""The beginning of the names of nodes and values that the source does not have."""


def read_attribute(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    """Return an attribute of a node, or ``default`` if the node does not have it."""
    for attribute in node.attribute:
        if attribute.name == name:
            return helper.get_attribute_value(attribute)
    return default


class Graph:
    """An ONNX model whose graph can be followed in both directions.

    The indices are those of the time of construction or of the last ``refresh``.

    Args:
        proto: The model. Changes are made in it.
    """

    def __init__(self, proto: onnx.ModelProto) -> None:
        self.proto = proto
        self.refresh()

    def refresh(self) -> None:
        """Build the indices again after nodes or constants were changed."""
        graph = self.proto.graph
        self._tensors = {tensor.name: tensor for tensor in graph.initializer}
        self.makers: dict[str, onnx.NodeProto] = {}
        self.readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in graph.node:
            self.makers.update(dict.fromkeys(node.output, node))
            for name in dict.fromkeys(node.input):
                self.readers[name].append(node)
        self.outputs = {value.name for value in graph.output}
        self._shapes = {value.name: value.type.tensor_type.shape for value in graph.value_info}

    @property
    def nodes(self) -> Sequence[onnx.NodeProto]:
        """The nodes, each behind those that it reads."""
        return list(self.proto.graph.node)

    def is_constant(self, name: str) -> bool:
        """Return whether a value is an initializer or the output of a Constant node."""
        maker = self.makers.get(name)
        return name in self._tensors or (maker is not None and maker.op_type == "Constant")

    def constant(self, name: str) -> npt.NDArray[Any] | None:
        """Return a constant value; None if the value is computed."""
        if name in self._tensors:
            return np.asarray(numpy_helper.to_array(self._tensors[name]))
        maker = self.makers.get(name)
        if maker is None or maker.op_type != "Constant":
            return None
        value = read_attribute(maker, "value")
        if isinstance(value, TensorProto):
            return np.asarray(numpy_helper.to_array(value))
        for kind in ("value_float", "value_floats", "value_int", "value_ints"):
            found = read_attribute(maker, kind)
            if found is not None:
                return np.asarray(found, np.float32 if "float" in kind else np.int64)
        return None

    def has_one_position(self, name: str) -> bool:
        """Return whether a value is known to have one position of a picture: (N, channels, 1, 1)."""
        sides = self._shapes[name].dim if name in self._shapes else ()
        return len(sides) == 4 and all(side.dim_value == 1 for side in sides[2:])

    def sole_reader(self, name: str) -> onnx.NodeProto | None:
        """Return the only node that reads a value; None if there are several, none, or it is an output too."""
        readers = self.readers.get(name, [])
        return readers[0] if len(readers) == 1 and name not in self.outputs else None

    def set_constant(self, name: str, values: npt.ArrayLike) -> None:
        """Add an initializer, or replace the one of that name."""
        tensor = numpy_helper.from_array(np.array(values, order="C"), name)
        if name in self._tensors:
            self._tensors[name].CopyFrom(tensor)
            return
        self.proto.graph.initializer.append(tensor)
        self._tensors[name] = self.proto.graph.initializer[-1]

    def add(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """Append a node with one output, and return the name of the output.

        The node's name begins with ``capsule_edge/``: onnxruntime wants names that no node of the source has.
        """
        name = OWN + output.removeprefix(OWN)
        self.proto.graph.node.append(helper.make_node(kind, inputs, [output], name=name, **attributes))
        return output

    def prepend(self, nodes: Sequence[onnx.NodeProto]) -> None:
        """Put nodes before all others."""
        rest = list(self.proto.graph.node)
        del self.proto.graph.node[:]
        self.proto.graph.node.extend([*nodes, *rest])

    def rename_input(self, name: str, other: str) -> None:
        """Let every node that reads ``name`` read ``other`` instead."""
        for node in self.proto.graph.node:
            for at, given in enumerate(node.input):
                if given == name:
                    node.input[at] = other

    def drop_unused(self) -> None:
        """Remove the nodes and initializers that no output needs."""
        graph = self.proto.graph
        needed = {value.name for value in graph.output}
        kept = []
        for node in reversed(graph.node):
            if needed & set(node.output):
                needed.update(node.input)
                kept.append(node)
        tensors = [tensor for tensor in graph.initializer if tensor.name in needed]
        del graph.node[:], graph.initializer[:]
        graph.node.extend(reversed(kept))
        graph.initializer.extend(tensors)
        self.refresh()
