"""Build or change a TFLite graph: tensors, buffers, operators, and the outputs that every TFLite file of ours has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema

__all__ = ["TfliteGraph", "quantization"]

_Op, _Type = schema.BuiltinOperator, schema.TensorType
_TYPES = {"float32": _Type.FLOAT32, "uint8": _Type.UINT8, "int8": _Type.INT8, "int32": _Type.INT32}


class TfliteGraph:
    """Tensors, buffers and operators under construction. Methods that add a tensor return its index.

    Args:
        model: A ``schema.ModelT`` to go on with: its first graph, in place. None begins with nothing.
    """

    versions: ClassVar[Mapping[int, int]] = {}
    """The version of each operator that is not 1."""

    def __init__(self, model: Any = None) -> None:
        self._model = schema.ModelT() if model is None else model
        graph = model.subgraphs[0] if model is not None else schema.SubGraphT()
        self.tensors: list[Any] = list(graph.tensors or [])
        # TFLite requires that buffer 0 is empty. Tensors without a constant refer to it.
        self._buffers: list[Any] = list(self._model.buffers or [schema.BufferT()])
        self.operators: list[Any] = list(graph.operators or [])
        self._operator_codes: list[Any] = list(self._model.operatorCodes or [])
        # The index of each operator code that was added, by operator and version.
        self._codes: dict[tuple[int, int], int] = {}

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
            tensor.quantization = quantization(np.array([scale]), [zero_point])
        return len(self.tensors) - 1

    def constant(self, name: str, values: npt.NDArray[Any], scales: Any = None, axis: int = 0) -> int:
        """Add a constant. With ``scales`` it is quantised along ``axis``, with zero points of 0."""
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(values.tobytes(), np.uint8)
        self._buffers.append(buffer)
        tensor = self._tensor(name, list(values.shape), str(values.dtype), len(self._buffers) - 1)
        if scales is not None:
            tensor.quantization = quantization(scales, [0] * len(scales), axis)
        return len(self.tensors) - 1

    def values(self, index: int) -> npt.NDArray[Any] | None:
        """Return the values of a float32 or int32 constant; None if the tensor is no such constant."""
        tensor = self.tensors[index] if index >= 0 else None
        data = None if tensor is None else self._buffers[tensor.buffer].data
        kinds = {_Type.FLOAT32: "<f4", _Type.INT32: "<i4"}
        if tensor is None or data is None or tensor.type not in kinds:
            return None
        return np.asarray(data, np.uint8).view(kinds[tensor.type]).reshape(self.shape(index))

    def shape(self, index: int) -> tuple[int, ...]:
        """Return the shape of a tensor, with a batch of one."""
        shape = self.tensors[index].shape
        return () if shape is None else tuple(int(side) for side in shape)

    def _tensor(self, name: str, shape: list[int], dtype: str, buffer: int) -> Any:
        tensor = schema.TensorT()
        tensor.name, tensor.shape = name.encode(), np.array(shape, np.int32)
        tensor.type, tensor.buffer, tensor.hasRank = _TYPES[dtype], buffer, True
        self.tensors.append(tensor)
        return tensor

    def operator(
        self, code: int, inputs: list[int], output: int, options: Any = None, *, version: int | None = None
    ) -> None:
        """Add an operator of the given version, by default the one in ``versions``, else 1."""
        key = (code, version or self.versions.get(code, 1))
        if key not in self._codes:
            self._codes[key] = len(self._operator_codes)
            self._operator_codes.append(_operator_code(*key))
        operator = schema.OperatorT()
        operator.opcodeIndex = self._codes[key]
        operator.inputs, operator.outputs = np.array(inputs, np.int32), np.array([output], np.int32)
        if options is not None:
            operator.builtinOptions = options
            operator.builtinOptionsType = getattr(
                schema.BuiltinOptions, type(options).__name__.removesuffix("T")
            )
        self.operators.append(operator)

    def code(self, operator: Any) -> int:
        """Return the ``BuiltinOperator`` of an operator."""
        found = self._operator_codes[operator.opcodeIndex]
        # Files of old converters have the first schema's byte alone.
        return int(max(found.builtinCode, found.deprecatedBuiltinCode))

    def add_features(self, maps: int, classifier: npt.NDArray[np.float32]) -> int:
        """Add the features: the dense weights (channels, labels) at each position of a map (N, h, w, channels)."""
        height, width = self.shape(maps)[1:3]
        labels = classifier.shape[1]
        weights = self.constant("classifier", classifier.T[:, None, None, :])
        zeros = self.constant("classifier/bias", np.zeros(labels, np.float32))
        features = self.activation("features", (height, width, labels), "float32")
        options = schema.Conv2DOptionsT()
        options.strideH = options.strideW = 1
        options.padding = schema.Padding.VALID
        self.operator(_Op.CONV_2D, [maps, weights, zeros], features, options, version=1)
        return features

    def add_probabilities(self, logits: int, labels: int, temperature: float) -> int:
        """Add the probabilities: the softmax of the logits divided by the temperature."""
        inverse = self.constant("inverse_temperature", np.asarray(1 / temperature, np.float32))
        calibrated = self.activation("calibrated_logits", (labels,), "float32")
        self.operator(_Op.MUL, [logits, inverse], calibrated, schema.MulOptionsT())
        options = schema.SoftmaxOptionsT()
        options.beta = 1.0
        probabilities = self.activation("probabilities", (labels,), "float32")
        self.operator(_Op.SOFTMAX, [calibrated], probabilities, options)
        return probabilities

    def model(self, inputs: dict[str, int], outputs: dict[str, int]) -> Any:
        """Return the ``schema.ModelT`` with the given inputs and outputs, as indices by name."""
        subgraph, signature, model = schema.SubGraphT(), schema.SignatureDefT(), self._model
        subgraph.name = b"main"
        subgraph.tensors, subgraph.operators = self.tensors, self.operators
        subgraph.inputs = np.array(list(inputs.values()), np.int32)
        subgraph.outputs = np.array(list(outputs.values()), np.int32)
        signature.signatureKey, signature.subgraphIndex = b"serving_default", 0
        signature.inputs, signature.outputs = _tensor_maps(inputs), _tensor_maps(outputs)
        model.version, model.description = 3, b"capsule-edge"
        model.subgraphs = [subgraph, *(model.subgraphs or [])[1:]]
        model.signatureDefs, model.buffers, model.operatorCodes = (
            [signature], self._buffers, self._operator_codes,
        )  # fmt: skip
        return model


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


def quantization(scales: npt.NDArray[np.float32], zero_points: list[int], axis: int = 0) -> Any:
    """Return the parameters of a quantised tensor: a scale and a zero point, or one for each index of ``axis``."""
    made = schema.QuantizationParametersT()
    made.scale, made.zeroPoint = scales.astype(np.float32), np.array(zero_points, np.int64)
    made.quantizedDimension = axis
    return made
