"""Check that onnxruntime runs an INT8 ONNX file in integers: check the file, then onnxruntime's optimised graph.

onnxruntime does not say when it refuses to fuse operators. A wrong bias scale, a vector of one where a scalar is
needed, or S8 activations show only as slowness, or as float operators in its optimised graph.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import numpy_helper

from capsule_edge.runtime.errors import ModelError

__all__ = ["GraphReport", "check_bias_scales", "check_int8_graph", "count_operators"]

_FLOAT_CONVOLUTIONS = ("Conv", "FusedConv", "NhwcFusedConv", "ConvInteger")
_PAIRS = ("QuantizeLinear", "DequantizeLinear")
# The integer part has two outputs that are dequantised: the last map for the features, the logits for the softmax.
_OUTPUT_PAIRS = 2
# Allowed relative error of a bias scale.
_RELATIVE = 1e-6


@dataclass(frozen=True)
class GraphReport:
    """Counts of operators in onnxruntime's optimised graph of an INT8 file.

    Attributes:
        operators: How often each operator occurs, most frequent first.
        float_convolutions: Float convolutions, not counting the one that computes ``features``.
        inner_pairs: Quantize and dequantize operators, not counting those at the outputs.
        convolutions_checked: Quantised convolutions in the file.
    """

    operators: dict[str, int]
    float_convolutions: int
    inner_pairs: int
    convolutions_checked: int


def count_operators(path: Path) -> dict[str, int]:
    """Count the operators in the graph that onnxruntime runs.

    Returns:
        How often each operator occurs, most frequent first.

    Raises:
        ModelError: onnxruntime cannot read the file.
    """
    with tempfile.TemporaryDirectory() as folder:
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.optimized_model_filepath = str(Path(folder) / "optimised.onnx")
        try:
            ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises exceptions without a common base class
            raise ModelError(f"{path} cannot be read by onnxruntime: {str(error).splitlines()[0]}") from None
        optimised = onnx.load(options.optimized_model_filepath)
    return dict(Counter(node.op_type for node in optimised.graph.node).most_common())


def check_int8_graph(path: Path, *, kept: Collection[str] = ()) -> GraphReport:
    """Check the scales and types in an INT8 file, then that onnxruntime runs it in integers.

    Args:
        path: The INT8 ONNX file.
        kept: The names of layers that were kept in float. No other convolution may be float.

    Raises:
        ModelError: A check fails. The error names the first layer at fault, or the operators that are left.
    """
    checked = check_bias_scales(path, kept=kept)
    counts = count_operators(path)
    # One more float convolution is allowed, the one that computes the features. check_bias_scales made sure that no
    # other is there.
    float_convolutions = max(0, sum(counts.get(kind, 0) for kind in _FLOAT_CONVOLUTIONS) - 1)
    inner_pairs = max(0, sum(counts.get(kind, 0) for kind in _PAIRS) - _OUTPUT_PAIRS)
    # A layer kept in float needs a DequantizeLinear before it and a QuantizeLinear behind it. A branch beside the
    # layer may need two more.
    pairs = 2 + 4 * len(kept)
    if float_convolutions != len(kept) or inner_pairs > pairs:
        raise ModelError(
            f"{path}: onnxruntime leaves {float_convolutions} float convolutions and {inner_pairs} inner Q/DQ"
            f" nodes in the backbone, allowed are {len(kept)} and {pairs}",
            hint=f"operators: {', '.join(f'{count} {kind}' for kind, count in counts.items())}",
        )
    return GraphReport(counts, float_convolutions, inner_pairs, checked)


def check_bias_scales(path: Path, *, kept: Collection[str] = ()) -> int:
    """Check every convolution of an INT8 file.

    A quantised convolution must have:

    - U8 activations on both sides, each with one scale;
    - S8 weights with zero point 0 and a scale for each channel;
    - an S32 bias whose scale is input scale x weight scale within a relative error of 1e-6.

    A convolution may be float only if it computes ``features`` or is one of the layers ``kept``.

    Returns:
        The number of quantised convolutions.

    Raises:
        ModelError: A check fails. The error names the layer.
    """
    graph = _GraphFile(path)
    checked = 0
    for node in graph.of_kind("Conv"):
        weights = graph.dequantized(node.input[1])
        if weights is not None:
            _check_quantized(graph, node, weights)
            checked += 1
        elif "features" not in node.name and node.input[1].removesuffix("/weights/real") not in kept:
            raise ModelError(f"{path}: the weights of {node.name!r} are float")
    for node in graph.of_kind("QuantizeLinear"):
        if graph.constant(node.input[2]).dtype != np.uint8:
            raise ModelError(f"{path}: the activation {node.output[0]!r} is not uint8")
    if not checked:
        raise ModelError(f"{path} holds no quantised convolution")
    return checked


@dataclass(frozen=True)
class _Dequantized:
    """A DequantizeLinear node.

    ``dtype`` is the type of its integers, ``channels`` the length of the first axis if they are a constant, else 1.
    """

    dtype: np.dtype[Any]
    scale: npt.NDArray[np.float32]
    zero: npt.NDArray[Any]
    channels: int


class _GraphFile:
    """An ONNX file with its constants by name and its nodes by output."""

    def __init__(self, path: Path) -> None:
        try:
            self.proto = onnx.load(path)
        except Exception as error:  # protobuf and onnx raise exceptions without a common base class
            raise ModelError(f"{path} is no ONNX file: {error}") from None
        self.path = path
        self.constants = {tensor.name: tensor for tensor in self.proto.graph.initializer}
        self.makers = {output: node for node in self.proto.graph.node for output in node.output}

    def of_kind(self, kind: str) -> Iterator[Any]:
        return (node for node in self.proto.graph.node if node.op_type == kind)

    def constant(self, name: str) -> npt.NDArray[Any]:
        if name not in self.constants:
            raise ModelError(f"{self.path}: {name!r} is not a constant")
        return np.asarray(numpy_helper.to_array(self.constants[name]))

    def dequantized(self, name: str) -> _Dequantized | None:
        """Return the DequantizeLinear whose output is ``name``, or None if another node computes it."""
        node = self.makers.get(name)
        if node is None or node.op_type != "DequantizeLinear":
            return None
        zero = self.constant(node.input[2])
        shape = self.constants[node.input[0]].dims if node.input[0] in self.constants else [1]
        return _Dequantized(zero.dtype, self.constant(node.input[1]), zero, int(shape[0]))


def _check_quantized(graph: _GraphFile, node: Any, weights: _Dequantized) -> None:
    """Raise ``ModelError`` unless the types and scales of a quantised convolution are as they must be."""
    path = graph.path
    data = graph.dequantized(node.input[0])
    bias = graph.dequantized(node.input[2]) if len(node.input) > 2 else None
    if data is None or bias is None:
        raise ModelError(f"{path}: the input or bias of {node.name!r} is not quantised")
    if fault := _type_fault(data, weights, bias):
        raise ModelError(f"{path}: in {node.name!r} the {fault}")
    worst = float(np.max(np.abs(bias.scale / (data.scale * weights.scale) - 1)))
    if worst > _RELATIVE:
        raise ModelError(
            f"{path}: the bias scale of {node.name!r} differs from input scale x weight scale by {worst:.3g},"
            f" allowed is {_RELATIVE:g}",
            hint="requantise the bias when a scale before it changes",
        )


def _type_fault(data: _Dequantized, weights: _Dequantized, bias: _Dequantized) -> str:
    """Say which type or shape is wrong; an empty string if none is."""
    if data.dtype != np.uint8:
        return f"activations are {data.dtype}, they must be uint8"
    if data.scale.ndim or data.zero.ndim:
        return "activations have a vector of scales, they must have a scalar"
    if weights.dtype != np.int8:
        return f"weights are {weights.dtype}, they must be int8"
    if np.any(weights.zero):
        return "weights have zero points other than 0"
    if weights.scale.shape != (weights.channels,):
        return (
            f"weights have scales of shape {weights.scale.shape} for {weights.channels} channels,"
            " they must have one for each"
        )
    return "" if bias.dtype == np.int32 else f"bias is {bias.dtype}, it must be int32"
