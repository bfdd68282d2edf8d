"""The INT8 TFLite file, written from the integers of the QAT model: pixels uint8, s8 inside, the three
outputs float32.

The first operation turns the uint8 pixels to s8 (the same integers less 128); the dense layer is a 1x1
convolution over the kept 1 x 1 mean, since that has had a scale for each channel in every runtime since
2019. Operator versions are the lowest that TensorFlow's converter writes for these forms.
"""

from __future__ import annotations

from typing import Any

import flatbuffers
import numpy as np
import numpy.typing as npt
from tensorflow.lite.python import schema_py_generated as schema

from capsule_edge.runtime.errors import ModelError
from capsule_edge.runtime.inference import METADATA_KEY, ModelSpec

from .integers import IntegerModel, IntegerNode, IntegerTensor, RealKernel

__all__ = ["build_int8_tflite", "finish"]

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
    """The file: signature ``serving_default``, from ``frames`` uint8 (N, s, s, 3) to the three outputs."""
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
    return finish(graph.model({"frames": frames}, outputs), spec)


def finish(model: Any, spec: ModelSpec) -> bytes:
    """The flatbuffer of a TFLite model with ``spec`` in its metadata, in place of any that is there."""
    key = METADATA_KEY.encode()
    model.metadata = model.metadata or []
    entry = next((entry for entry in model.metadata if entry.name == key), None)
    if entry is None:
        entry = schema.MetadataT()
        entry.name, entry.buffer = key, len(model.buffers)
        model.metadata.append(entry)
        model.buffers.append(schema.BufferT())
    model.buffers[entry.buffer].data = np.frombuffer(spec.to_json().encode(), np.uint8)
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def _add_logits(graph: _Graph, tensor: IntegerTensor, labels: int) -> int:
    """The last map, 1 x 1, as float32 (labels,)."""
    shape = graph.constant("logits/shape", np.array([-1, labels], np.int32))
    reshape = schema.ReshapeOptionsT()
    reshape.newShape = [-1, labels]
    logits = graph.activation("logits", (labels,), "float32")
    if tensor.unrounded:
        graph.operator(_Op.RESHAPE, [graph.real(tensor), shape], logits, reshape)
        return logits
    steps = graph.activation("logits/s8", (labels,), "int8", tensor.scale, tensor.zero_point)
    graph.operator(_Op.RESHAPE, [graph.integers(tensor), shape], steps, reshape)
    graph.operator(_Op.DEQUANTIZE, [steps], logits)
    return logits


def _add_features(graph: _Graph, model: IntegerModel) -> int:
    """The dense weights at each position of the last map, in float, as in the ONNX file."""
    height, width, _ = model.maps.shape
    labels = model.logits.shape[2]
    maps = graph.real(model.maps)
    classifier = graph.constant("classifier", model.classifier.T[:, None, None, :])
    zeros = graph.constant("classifier/bias", np.zeros(labels, np.float32))
    features = graph.activation("features", (height, width, labels), "float32")
    options = schema.Conv2DOptionsT()
    options.strideH = options.strideW = 1
    options.padding = schema.Padding.VALID
    graph.operator(_Op.CONV_2D, [maps, classifier, zeros], features, options, version=1)
    return features


def _add_probabilities(graph: _Graph, logits: int, labels: int, temperature: float) -> int:
    inverse = graph.constant("inverse_temperature", np.asarray(1 / temperature, np.float32))
    calibrated = graph.activation("calibrated_logits", (labels,), "float32")
    graph.operator(_Op.MUL, [logits, inverse], calibrated, schema.MulOptionsT())
    options = schema.SoftmaxOptionsT()
    options.beta = 1.0
    probabilities = graph.activation("probabilities", (labels,), "float32")
    graph.operator(_Op.SOFTMAX, [calibrated], probabilities, options)
    return probabilities


class _Graph:
    """Tensors, buffers and operators under construction; what adds a tensor returns its index."""

    def __init__(self) -> None:
        self._tensors: list[Any] = []
        # By TFLite's rule buffer 0 is empty, for the tensors that hold no constant.
        self._buffers: list[Any] = [schema.BufferT()]
        self._operators: list[Any] = []
        self._codes: dict[tuple[int, int], int] = {}
        self._activations: dict[str, int] = {}
        self._reals: dict[str, int] = {}

    def activation(
        self,
        name: str,
        shape: tuple[int, ...],
        dtype: str,
        scale: np.float32 | None = None,
        zero_point: int = 0,
    ) -> int:
        """A tensor of ``shape`` behind a dynamic batch."""
        tensor = self._tensor(name, [1, *shape], dtype, 0)
        tensor.shapeSignature = np.array([-1, *shape], np.int32)
        if scale is not None:
            tensor.quantization = _quantisation(np.array([scale]), [zero_point])
        return len(self._tensors) - 1

    def integers(self, tensor: IntegerTensor) -> int:
        """The s8 tensor of an activation, made at its first mention."""
        if tensor.name not in self._activations:
            index = self.activation(
                f"{tensor.name}/s8", tensor.shape, "int8", tensor.scale, tensor.zero_point
            )
            self._activations[tensor.name] = index
        return self._activations[tensor.name]

    def real(self, tensor: IntegerTensor) -> int:
        """The float32 tensor of an activation: its own where it is not rounded, else dequantised once."""
        if tensor.name not in self._reals:
            self._reals[tensor.name] = self.activation(f"{tensor.name}/real", tensor.shape, "float32")
            if not tensor.unrounded:
                self.operator(_Op.DEQUANTIZE, [self.integers(tensor)], self._reals[tensor.name])
        return self._reals[tensor.name]

    def constant(self, name: str, values: npt.NDArray[Any], scales: Any = None, axis: int = 0) -> int:
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(values.tobytes(), np.uint8)
        self._buffers.append(buffer)
        tensor = self._tensor(name, list(values.shape), str(values.dtype), len(self._buffers) - 1)
        if scales is not None:
            tensor.quantization = _quantisation(scales, [0] * len(scales), axis)
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
        if node.real is not None:
            self._add_real(node, node.real)
            return
        inputs = [self.integers(tensor) for tensor in node.inputs]
        code, options = _OPERATORS[node.kind]()
        if node.kind == "mean":
            inputs.append(self.constant(f"{node.name}/axes", np.array([1, 2], np.int32)))
        elif node.kind != "add":
            options.strideH, options.strideW = node.strides
            options.padding = schema.Padding.SAME if node.padding == "same" else schema.Padding.VALID
        if node.kind in ("max_pool", "average_pool"):
            options.filterHeight, options.filterWidth = node.window
        if node.kernel is not None:
            kernel, depthwise = node.kernel, node.kind == "depthwise"
            weights = kernel.weights[None] if depthwise else kernel.weights.transpose(3, 0, 1, 2)
            inputs.append(
                self.constant(f"{node.name}/weights", weights, kernel.scales, 3 if depthwise else 0)
            )
            products = node.inputs[0].scale * kernel.scales
            inputs.append(self.constant(f"{node.name}/bias", kernel.biases, products))
        self.operator(code, inputs, self.integers(node.output), options)

    def _add_real(self, node: IntegerNode, kernel: RealKernel) -> None:
        """A convolution kept in float between DEQUANTIZE and QUANTIZE."""
        code, options = _OPERATORS[node.kind]()
        options.strideH, options.strideW = node.strides
        options.padding = schema.Padding.SAME if node.padding == "same" else schema.Padding.VALID
        clips = {None: schema.ActivationFunctionType.RELU, 6.0: schema.ActivationFunctionType.RELU6}
        if kernel.relu and kernel.ceiling not in clips:
            raise ModelError(f"the ReLU of {node.name!r} ends at {kernel.ceiling:g}, TFLite has 6 and none")
        if kernel.relu:
            options.fusedActivationFunction = clips[kernel.ceiling]
        weights = kernel.weights[None] if node.kind == "depthwise" else kernel.weights.transpose(3, 0, 1, 2)
        inputs = [
            self.real(node.inputs[0]),
            self.constant(f"{node.name}/weights", np.ascontiguousarray(weights)),
            self.constant(f"{node.name}/bias", kernel.biases),
        ]
        if node.output.unrounded:
            self.operator(code, inputs, self.real(node.output), options, version=1)
            return
        result = self.activation(f"{node.output.name}/float", node.output.shape, "float32")
        self.operator(code, inputs, result, options, version=1)
        self.operator(_Op.QUANTIZE, [result], self.integers(node.output))

    def model(self, inputs: dict[str, int], outputs: dict[str, int]) -> Any:
        subgraph, signature, model = schema.SubGraphT(), schema.SignatureDefT(), schema.ModelT()
        subgraph.name = b"main"
        subgraph.tensors, subgraph.operators = self._tensors, self._operators
        subgraph.inputs = np.array(list(inputs.values()), np.int32)
        subgraph.outputs = np.array(list(outputs.values()), np.int32)
        signature.signatureKey, signature.subgraphIndex = b"serving_default", 0
        signature.inputs, signature.outputs = _names(inputs), _names(outputs)
        model.version, model.description = 3, b"capsule-edge"
        model.subgraphs, model.signatureDefs, model.buffers = [subgraph], [signature], self._buffers
        model.operatorCodes = [_code(code, version) for code, version in self._codes]
        return model


def _names(tensors: dict[str, int]) -> list[Any]:
    maps = []
    for name, index in tensors.items():
        entry = schema.TensorMapT()
        entry.name, entry.tensorIndex = name.encode(), index
        maps.append(entry)
    return maps


def _code(code: int, version: int) -> Any:
    made = schema.OperatorCodeT()
    # Codes above 127 do not fit the first schema's byte, which old readers look at.
    made.builtinCode, made.deprecatedBuiltinCode, made.version = code, min(code, 127), version
    return made


def _quantisation(scales: npt.NDArray[np.float32], zero_points: list[int], axis: int = 0) -> Any:
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
