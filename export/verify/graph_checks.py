"""What an INT8 ONNX file has to be to run in integers, checked on the file and on what onnxruntime makes of
it.

onnxruntime refuses a fusion in silence: a wrong bias scale, a vector of one where a scalar is needed or S8
activations only show as slowness, or as float operators in its optimised graph.
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
# The last map is dequantised for the features, the logits for the softmax: the quantised part's two outputs.
_OUTPUT_PAIRS = 2
_RELATIVE = 1e-6


@dataclass(frozen=True)
class GraphReport:
    """Counts in onnxruntime's optimised graph: of each operator, of float convolutions besides that of
    ``features``, and of Q and DQ nodes besides those at the input and the outputs."""

    operators: dict[str, int]
    float_convolutions: int
    inner_pairs: int
    convolutions_checked: int


def count_operators(path: Path) -> dict[str, int]:
    """How often each operator occurs in the graph that onnxruntime runs, most frequent first.

    Raises ``ModelError`` when onnxruntime cannot read the file.
    """
    with tempfile.TemporaryDirectory() as folder:
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.optimized_model_filepath = str(Path(folder) / "optimised.onnx")
        try:
            ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises its own unrelated types
            raise ModelError(f"{path} cannot be read by onnxruntime: {str(error).splitlines()[0]}") from None
        optimised = onnx.load(options.optimized_model_filepath)
    return dict(Counter(node.op_type for node in optimised.graph.node).most_common())


def check_int8_graph(path: Path, *, kept: Collection[str] = ()) -> GraphReport:
    """Check the file's scales and types, then that onnxruntime turns all of the backbone into integer
    operations, except the layers ``kept`` in float.

    Raises ``ModelError`` that names the first layer or operator at fault.
    """
    checked = check_bias_scales(path, kept=kept)
    counts = count_operators(path)
    # One float convolution is allowed, the classifier at each position; ``check_bias_scales`` saw that it is
    # that.
    float_convolutions = max(0, sum(counts.get(kind, 0) for kind in _FLOAT_CONVOLUTIONS) - 1)
    inner_pairs = max(0, sum(counts.get(kind, 0) for kind in _PAIRS) - _OUTPUT_PAIRS)
    # A kept layer has one dequantised input and one quantised output, and a branch beside it may need its own.
    pairs = 2 + 4 * len(kept)
    if float_convolutions != len(kept) or inner_pairs > pairs:
        raise ModelError(
            f"{path}: onnxruntime leaves {float_convolutions} float convolutions and {inner_pairs} inner Q/DQ"
            f" nodes in the backbone, allowed are {len(kept)} and {pairs}",
            hint=f"operators: {', '.join(f'{count} {kind}' for kind, count in counts.items())}",
        )
    return GraphReport(counts, float_convolutions, inner_pairs, checked)


def check_bias_scales(path: Path, *, kept: Collection[str] = ()) -> int:
    """Check every quantised convolution of the file; the answer is their number.

    Each has U8 activations on both sides, S8 weights with zero point 0 and a scale for each channel, and an
    S32 bias whose scale is input scale x weight scale within 1e-6. Raises ``ModelError`` that names the
    layer, also for a convolution that is not quantised at all unless it produces ``features`` or is ``kept``.
    """
    graph = _Graph(path)
    checked = 0
    for node in graph.of_kind("Conv"):
        data, weights = graph.dequantized(node.input[0]), graph.dequantized(node.input[1])
        if weights is None:
            if "features" not in node.name and node.input[1].removesuffix("/weights/real") not in kept:
                raise ModelError(f"{path}: the weights of {node.name!r} are float")
            continue
        bias = graph.dequantized(node.input[2]) if len(node.input) > 2 else None
        if data is None or bias is None:
            raise ModelError(f"{path}: the input or bias of {node.name!r} is not quantised")
        _check_types(path, node.name, data, weights, bias)
        expected = data.scale * weights.scale
        worst = float(np.max(np.abs(bias.scale / expected - 1)))
        if worst > _RELATIVE:
            raise ModelError(
                f"{path}: the bias scale of {node.name!r} is off input scale x weight scale by {worst:.3g},"
                f" allowed is {_RELATIVE:g}",
                hint="requantise the bias when a scale before it changes",
            )
        checked += 1
    for node in graph.of_kind("QuantizeLinear"):
        if graph.constant(node.input[2]).dtype != np.uint8:
            raise ModelError(f"{path}: the activation {node.output[0]!r} is not uint8")
    if not checked:
        raise ModelError(f"{path} holds no quantised convolution")
    return checked


@dataclass(frozen=True)
class _Dequantized:
    """A DequantizeLinear: the integers' type (of constants: their values) and what they mean."""

    dtype: np.dtype[Any]
    scale: npt.NDArray[np.float32]
    zero: npt.NDArray[Any]
    channels: int


class _Graph:
    def __init__(self, path: Path) -> None:
        try:
            self.proto = onnx.load(path)
        except Exception as error:  # protobuf and onnx raise unrelated types
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
        """What makes ``name`` if it is a DequantizeLinear."""
        node = self.makers.get(name)
        if node is None or node.op_type != "DequantizeLinear":
            return None
        zero = self.constant(node.input[2])
        shape = self.constants[node.input[0]].dims if node.input[0] in self.constants else [1]
        return _Dequantized(zero.dtype, self.constant(node.input[1]), zero, int(shape[0]))


def _check_types(
    path: Path, name: str, data: _Dequantized, weights: _Dequantized, bias: _Dequantized
) -> None:
    fault = ""
    if data.dtype != np.uint8:
        fault = f"activations are {data.dtype}, needed is uint8"
    elif data.scale.ndim or data.zero.ndim:
        fault = "activations have a vector of scales, needed is a scalar"
    elif weights.dtype != np.int8 or np.any(weights.zero):
        fault = f"weights are {weights.dtype} with zero points other than 0, needed is int8 and 0"
        fault = fault if weights.dtype == np.int8 else f"weights are {weights.dtype}, needed is int8"
    elif weights.scale.shape != (weights.channels,):
        fault = (
            f"weights have scales {weights.scale.shape} for {weights.channels} channels, needed is one each"
        )
    elif bias.dtype != np.int32:
        fault = f"bias is {bias.dtype}, needed is int32"
    if fault:
        raise ModelError(f"{path}: of {name!r} the {fault}")
