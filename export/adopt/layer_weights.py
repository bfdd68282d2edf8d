"""The weights of one layer as a matrix, and the scales of their 8-bit form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from capsule_edge.train.qat import Pairs, weight_limits

from .graph import Graph, read_attribute
from .quantised_nodes import weight_axis

__all__ = ["LEVELS", "LayerWeights"]

LEVELS = 127
"""The largest integer of a weight."""


class _NumpyOps:
    """The functions of ``keras.ops`` that ``weight_limits`` uses, in NumPy."""

    max, abs, sum = staticmethod(np.max), staticmethod(np.abs), staticmethod(np.sum)
    maximum, transpose = staticmethod(np.maximum), staticmethod(np.transpose)

    @staticmethod
    def relu(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return np.asarray(np.maximum(values, 0))

    @staticmethod
    def top_k(values: npt.NDArray[Any], k: int) -> tuple[npt.NDArray[Any], None]:
        return -np.partition(-values, k - 1, axis=-1)[..., :k], None


@dataclass(frozen=True)
class LayerWeights:
    """The weights of a layer.

    Attributes:
        flat: float32 (inputs, output channels); the inputs of a convolution are (channel, row, column).
        shape: The shape of the weights in the graph.
        axis: The axis of the output channels there.
        groups: The number of groups of channels that are computed apart.
        pairs: Which weights may meet in a sum of 16 bits.
        scales: The value of one step of each output channel, float64.
    """

    flat: npt.NDArray[np.float32]
    shape: tuple[int, ...]
    axis: int
    groups: int
    pairs: Pairs
    scales: npt.NDArray[np.float64]

    @classmethod
    def of(cls, graph: Graph, node: onnx.NodeProto, saturation_safe: bool) -> LayerWeights:
        """Read the weights of a layer of ``layers_of``.

        Args:
            graph: The float network.
            node: The layer.
            saturation_safe: Widen the scales so that no sum of two products overflows 16 bits.
        """
        weights, axis = graph.constant(node.input[1]), weight_axis(node)
        assert weights is not None  # ``layers_of`` chose the node
        moved = np.moveaxis(np.asarray(weights, np.float32), axis, -1)
        groups = int(read_attribute(node, "group", 1)) if node.op_type == "Conv" else 1
        pairs: Pairs = "none"
        # Engines compute a layer with one input channel in each group by kernels that widen before they multiply.
        if saturation_safe and not (groups > 1 and weights.shape[1] == 1):
            kernel = moved.shape[1:-1] if node.op_type == "Conv" else ()
            pairs = "any" if np.prod(kernel) > 1 else "adjacent"
        flat = moved.reshape(-1, moved.shape[-1])
        scales = np.asarray(weight_limits(flat, _NumpyOps, pairs=pairs) / LEVELS, np.float32)
        return cls(flat, weights.shape, axis, groups, pairs, scales.astype(np.float64))

    def nearest(self) -> npt.NDArray[np.float64]:
        """Return the nearest integer of each weight, in the form of ``flat``."""
        return np.clip(np.rint(self.flat / self.scales), -LEVELS, LEVELS)

    def shaped(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return values of the form of ``flat`` in the shape of the weights."""
        moved = np.moveaxis(np.empty(self.shape, np.int8), self.axis, -1).shape
        return np.moveaxis(values.reshape(moved), -1, self.axis)

    def dequantised(self, integers: npt.NDArray[np.int8]) -> npt.NDArray[np.float32]:
        """Return the weights that integers of their shape stand for."""
        sides = [1] * len(self.shape)
        sides[self.axis] = -1
        return (integers * self.scales.reshape(sides)).astype(np.float32)

    def overrides(self) -> list[dict[str, Any]]:
        """Return the scale of each output channel as the quantiser's overrides write it."""
        zero = np.array(0, np.int8)
        return [
            {"axis": self.axis, "scale": np.array(scale, np.float32), "zero_point": zero}
            for scale in self.scales
        ]
