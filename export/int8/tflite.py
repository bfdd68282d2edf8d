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
from .integers import FloatKernel, IntegerModel, IntegerNode, IntegerTensor, Kernel

__all__ = ["build_int8_tflite"]

_Op, _Type = schema.BuiltinOperator, schema.TensorType
_VERSIONS = {
    _Op.CONV_2D: 3,
    _Op.DEPTHWISE_CONV_2D: 3,
    _Op.ADD: 2,
    _Op.MEAN: 2,
    _Op.MAX_POOL_2D: 2,
    _Op.AVERAGE_POOL_2D: 2,
    _Op.DEQUANTIZE: 2,
}
_TYPES = {"float32": _Type.FLOAT32, "uint8": _Type.UINT8, "int8": _Type.INT8, "int32": _Type.INT32}


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
    features = _add_features(graph, model)
    probabilities = _add_probabilities(graph, logits, labels, spec.temperature)
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


def _add_features(graph: _Graph, model: IntegerModel) -> int:
    """Add the features: the dense weights at each position of the last map, in float as in the ONNX file."""
    height, width, _ = model.maps.shape
    labels = model.logits.shape[2]
    maps = graph.dequantized(model.maps)
    classifier = graph.constant("classifier", model.classifier.T[:, None, None, :])
    zeros = graph.constant("classifier/bias", np.zeros(labels, np.float32))
    features = graph.activation("features", (height, width, labels), "float32")
    options = schema.Conv2DOptionsT()
    options.strideH = options.strideW = 1
    options.padding = schema.Padding.VALID
    graph.operator(_Op.CONV_2D, [maps, classifier, zeros], features, options, version=1)
    return features


def _add_probabilities(graph: _Graph, logits: int, labels: int, temperature: float) -> int:
    """Add the probabilities: the softmax of the logits divided by the temperature."""
    inverse = graph.constant("inverse_temperature", np.asarray(1 / temperature, np.float32))
    calibrated = graph.activation("calibrated_logits", (labels,), "float32")
    graph.operator(_Op.MUL, [logits, inverse], calibrated, schema.MulOptionsT())
    options = schema.SoftmaxOptionsT()
    options.beta = 1.0
    probabilities = graph.activation("probabilities", (labels,), "float32")
    graph.operator(_Op.SOFTMAX, [calibrated], probabilities, options)
    return probabilities


class _Graph:
    """Tensors, buffers and operators under construction. Methods that add a tensor return its index."""

    def __init__(self) -> None:
        self._tensors: list[Any] = []
        # TFLite requires that buffer 0 is empty. Tensors without a constant refer to it.
        self._buffers: list[Any] = [schema.BufferT()]
        self._operators: list[Any] = []
        # The index of each operator code, by operator and version.
        self._codes: dict[tuple[int, int], int] = {}
        # The index of each activation's s8 tensor and of its float tensor, by name.
        self._activations: dict[str, int] = {}
        self._floats: dict[str, int] = {}

    def activation(
        self,
        name: str,
        shape: tuple[int, ...],
        dtype: str,
        scale: np.float32 | None = None,
        zero_point: int = 0,
    ) -> int:
        """Add a tensor of ``shape`` behind a dynamic batch."""
        tensor = self._tensor(name, [1, *shape], dtype, 0)
        tensor.shapeSignature = np.array([-1, *shape], np.int32)
        if scale is not None:
            tensor.quantization = _quantization(np.array([scale]), [zero_point])
        return len(self._tensors) - 1

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

    def constant(self, name: str, values: npt.NDArray[Any], scales: Any = None, axis: int = 0) -> int:
        """Add a constant. With ``scales`` it is quantised along ``axis``, with zero points of 0."""
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(values.tobytes(), np.uint8)
        self._buffers.append(buffer)
        tensor = self._tensor(name, list(values.shape), str(values.dtype), len(self._buffers) - 1)
        if scales is not None:
            tensor.quantization = _quantization(scales, [0] * len(scales), axis)
        return len(self._tensors) - 1

    def _tensor(self, name: str, shape: list[int], dtype: str, buffer: int) -> Any:
        tensor = schema.TensorT()
        tensor.name, tensor.shape = name.encode(), np.array(shape, np.int32)
        tensor.type, tensor.buffer, tensor.hasRank = _TYPES[dtype], buffer, True
        self._tensors.append(tensor)
        return tensor

    def operator(
        self, code: int, inputs: list[int], output: int, options: Any = None, *, version: int | None = None
    ) -> None:
        """Add an operator of the given version, by default the one in ``_VERSIONS``, else 1."""
        key = (code, version or _VERSIONS.get(code, 1))
        operator = schema.OperatorT()
        operator.opcodeIndex = self._codes.setdefault(key, len(self._codes))
        operator.inputs, operator.outputs = np.array(inputs, np.int32), np.array([output], np.int32)
        if options is not None:
            operator.builtinOptions = options
            operator.builtinOptionsType = getattr(
                schema.BuiltinOptions, type(options).__name__.removesuffix("T")
            )
        self._operators.append(operator)

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

    def model(self, inputs: dict[str, int], outputs: dict[str, int]) -> Any:
        """Return the ``schema.ModelT`` with the given inputs and outputs, as indices by name."""
        subgraph, signature, model = schema.SubGraphT(), schema.SignatureDefT(), schema.ModelT()
        subgraph.name = b"main"
        subgraph.tensors, subgraph.operators = self._tensors, self._operators
        subgraph.inputs = np.array(list(inputs.values()), np.int32)
        subgraph.outputs = np.array(list(outputs.values()), np.int32)
        signature.signatureKey, signature.subgraphIndex = b"serving_default", 0
        signature.inputs, signature.outputs = _tensor_maps(inputs), _tensor_maps(outputs)
        model.version, model.description = 3, b"capsule-edge"
        model.subgraphs, model.signatureDefs, model.buffers = [subgraph], [signature], self._buffers
        model.operatorCodes = [_operator_code(code, version) for code, version in self._codes]
        return model


def _weights(node: IntegerNode, weights: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the weights in TFLite's order: (out, h, w, in), or (1, h, w, channels) for a depthwise convolution."""
    return weights[None] if node.kind == "depthwise" else weights.transpose(3, 0, 1, 2)


def _set_window(options: Any, node: IntegerNode) -> None:
    """Set strides and padding, and the window of a pooling."""
    options.strideH, options.strideW = node.strides
    options.padding = schema.Padding.SAME if node.padding == "same" else schema.Padding.VALID
    if node.kind in ("max_pool", "average_pool"):
        options.filterHeight, options.filterWidth = node.window


def _tensor_maps(tensors: dict[str, int]) -> list[Any]:
    maps = []
    for name, index in tensors.items():
        entry = schema.TensorMapT()
        entry.name, entry.tensorIndex = name.encode(), index
        maps.append(entry)
    return maps


def _operator_code(code: int, version: int) -> Any:
    made = schema.OperatorCodeT()
    # Old readers look at the first schema's byte, which holds no code above 127.
    made.builtinCode, made.deprecatedBuiltinCode, made.version = code, min(code, 127), version
    return made


def _quantization(scales: npt.NDArray[np.float32], zero_points: list[int], axis: int = 0) -> Any:
    made = schema.QuantizationParametersT()
    made.scale, made.zeroPoint = scales.astype(np.float32), np.array(zero_points, np.int64)
    made.quantizedDimension = axis
    return made


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
