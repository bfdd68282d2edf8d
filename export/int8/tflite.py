"""Write the INT8 TFLite file: uint8 pixels in, s8 inside, the three outputs in float32.

The first operation turns the uint8 pixels into s8 (the same integers less 128). The dense layer is a 1 x 1
convolution over the 1 x 1 mean, because every runtime since 2019 supports a scale for each channel of a convolution.
Operator versions are the lowest that TensorFlow's converter writes for these operators.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema

from capsule_edge.runtime.errors import ModelError
from capsule_edge.runtime.inference import ModelSpec

from ..tflite_file import pack_tflite
from ..tflite_graph import TfliteGraph
from .integers import FloatKernel, IntegerModel, IntegerNode, IntegerTensor, Kernel

__all__ = ["build_int8_tflite"]

_Op = schema.BuiltinOperator
_VERSIONS = {
    _Op.CONV_2D: 3,
    _Op.DEPTHWISE_CONV_2D: 3,
    _Op.ADD: 2,
    _Op.MEAN: 2,
    _Op.MAX_POOL_2D: 2,
    _Op.AVERAGE_POOL_2D: 2,
    _Op.DEQUANTIZE: 2,
}


def build_int8_tflite(model: IntegerModel, spec: ModelSpec) -> bytes:
    """Build the INT8 TFLite file.

    Args:
        model: The integers.
        spec: The ModelSpec to write into the file's metadata. Its temperature calibrates the probabilities.

    Returns:
        The file's bytes. Signature ``serving_default``: ``frames``, uint8 (N, size, size, 3), to ``probabilities``
        and ``logits`` (N, labels) and ``features`` (N, h, w, labels), float32.
    """
    graph = _Graph()
    size, labels = model.pixels.shape[0], model.logits.shape[2]
    frames = graph.activation(
        "frames", (size, size, 3), "uint8", model.pixels.scale, model.pixels.zero_point + 128
    )
    graph.operator(_Op.QUANTIZE, [frames], graph.integers(model.pixels))
    for node in model.nodes:
        graph.add(node)
    logits = _add_logits(graph, model.logits, labels)
    # In float, as in the ONNX file.
    features = graph.add_features(graph.dequantized(model.maps), model.classifier)
    probabilities = graph.add_probabilities(logits, labels, spec.temperature)
    outputs = {"probabilities": probabilities, "logits": logits, "features": features}
    return pack_tflite(graph.model({"frames": frames}, outputs), spec)


def _add_logits(graph: _Graph, tensor: IntegerTensor, labels: int) -> int:
    """Add the logits: the dense layer's 1 x 1 output as float32 (labels,)."""
    shape = graph.constant("logits/shape", np.array([-1, labels], np.int32))
    reshape = schema.ReshapeOptionsT()
    reshape.newShape = [-1, labels]
    logits = graph.activation("logits", (labels,), "float32")
    if tensor.unrounded:
        graph.operator(_Op.RESHAPE, [graph.dequantized(tensor), shape], logits, reshape)
        return logits
    steps = graph.activation("logits/s8", (labels,), "int8", tensor.scale, tensor.zero_point)
    graph.operator(_Op.RESHAPE, [graph.integers(tensor), shape], steps, reshape)
    graph.operator(_Op.DEQUANTIZE, [steps], logits)
    return logits


class _Graph(TfliteGraph):
    """A graph of integers under construction. Methods that add a tensor return its index."""

    versions = _VERSIONS

    def __init__(self) -> None:
        super().__init__()
        # The index of each activation's s8 tensor and of its float tensor, by name.
        self._activations: dict[str, int] = {}
        self._floats: dict[str, int] = {}

    def integers(self, tensor: IntegerTensor) -> int:
        """Return the s8 tensor of an activation; add it at the first call."""
        if tensor.name not in self._activations:
            index = self.activation(
                f"{tensor.name}/s8", tensor.shape, "int8", tensor.scale, tensor.zero_point
            )
            self._activations[tensor.name] = index
        return self._activations[tensor.name]

    def dequantized(self, tensor: IntegerTensor) -> int:
        """Return the float32 tensor of an activation; add it, with its DEQUANTIZE, at the first call.

        An unrounded activation is float32 already and needs no DEQUANTIZE.
        """
        if tensor.name not in self._floats:
            self._floats[tensor.name] = self.activation(f"{tensor.name}/real", tensor.shape, "float32")
            if not tensor.unrounded:
                self.operator(_Op.DEQUANTIZE, [self.integers(tensor)], self._floats[tensor.name])
        return self._floats[tensor.name]

    def add(self, node: IntegerNode) -> None:
        """Add an operation from its s8 inputs to its s8 output."""
        if node.float_kernel is not None:
            self._add_float(node, node.float_kernel)
            return
        inputs = [self.integers(tensor) for tensor in node.inputs]
        code, options = _OPERATORS[node.kind]()
        if node.kind == "mean":
            inputs.append(self.constant(f"{node.name}/axes", np.array([1, 2], np.int32)))
        elif node.kind != "add":
            _set_window(options, node)
        if node.kernel is not None:
            inputs += self._integer_weights(node, node.kernel)
        self.operator(code, inputs, self.integers(node.output), options)

    def _integer_weights(self, node: IntegerNode, kernel: Kernel) -> list[int]:
        axis = 3 if node.kind == "depthwise" else 0
        products = node.inputs[0].scale * kernel.scales
        return [
            self.constant(f"{node.name}/weights", _weights(node, kernel.weights), kernel.scales, axis),
            self.constant(f"{node.name}/bias", kernel.biases, products),
        ]

    def _add_float(self, node: IntegerNode, kernel: FloatKernel) -> None:
        """Add a convolution kept in float, between DEQUANTIZE and QUANTIZE."""
        code, options = _OPERATORS[node.kind]()
        _set_window(options, node)
        clips = {None: schema.ActivationFunctionType.RELU, 6.0: schema.ActivationFunctionType.RELU6}
        if kernel.relu and kernel.ceiling not in clips:
            raise ModelError(
                f"the ReLU of {node.name!r} ends at {kernel.ceiling:g}; TFLite has ReLUs that end at 6 or nowhere"
            )
        if kernel.relu:
            options.fusedActivationFunction = clips[kernel.ceiling]
        inputs = [
            self.dequantized(node.inputs[0]),
            self.constant(f"{node.name}/weights", np.ascontiguousarray(_weights(node, kernel.weights))),
            self.constant(f"{node.name}/bias", kernel.biases),
        ]
        if node.output.unrounded:
            self.operator(code, inputs, self.dequantized(node.output), options, version=1)
            return
        result = self.activation(f"{node.output.name}/float", node.output.shape, "float32")
        self.operator(code, inputs, result, options, version=1)
        self.operator(_Op.QUANTIZE, [result], self.integers(node.output))


def _weights(node: IntegerNode, weights: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the weights in TFLite's order: (out, h, w, in), or (1, h, w, channels) for a depthwise convolution."""
    return weights[None] if node.kind == "depthwise" else weights.transpose(3, 0, 1, 2)


def _set_window(options: Any, node: IntegerNode) -> None:
    """Set strides and padding, and the window of a pooling."""
    options.strideH, options.strideW = node.strides
    options.padding = schema.Padding.SAME if node.padding == "same" else schema.Padding.VALID
    if node.kind in ("max_pool", "average_pool"):
        options.filterHeight, options.filterWidth = node.window


def _depthwise_options() -> Any:
    options = schema.DepthwiseConv2DOptionsT()
    options.depthMultiplier = 1
    return options


def _mean_options() -> Any:
    options = schema.ReducerOptionsT()
    options.keepDims = True
    return options


_OPERATORS: dict[str, Any] = {
    "conv": lambda: (_Op.CONV_2D, schema.Conv2DOptionsT()),
    "depthwise": lambda: (_Op.DEPTHWISE_CONV_2D, _depthwise_options()),
    "add": lambda: (_Op.ADD, schema.AddOptionsT()),
    "mean": lambda: (_Op.MEAN, _mean_options()),
    "max_pool": lambda: (_Op.MAX_POOL_2D, schema.Pool2DOptionsT()),
    "average_pool": lambda: (_Op.AVERAGE_POOL_2D, schema.Pool2DOptionsT()),
}
