"""Read the ModelSpec in a TFLite file: the metadata entry ``capsule_edge``, whose buffer holds the JSON.

This needs only the package ``flatbuffers``, which onnxruntime and LiteRT install. The field numbers are those of
TFLite's schema (tensorflow/compiler/mlir/lite/schema/schema.fbs): ``Model.buffers`` 4, ``Model.metadata`` 6,
``Metadata.name`` 0, ``Metadata.buffer`` 1, ``Buffer.data`` 0; for the checks ``Model.subgraphs`` 2,
``SubGraph.tensors`` 0, ``Tensor.shape`` 0, ``.type`` 1, ``.name`` 3, ``.quantization`` 4,
``QuantizationParameters.scale`` 2 and ``.zero_point`` 3.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from flatbuffers import encode, packer
from flatbuffers.table import Table

from ..errors import ModelError
from .backend import parse_spec
from .model_limits import check_positive, check_single, check_size, refuse_external
from .spec import METADATA_KEY, ModelSpec
from .spec_document import decode_document

__all__ = ["check_tflite", "parse_tflite_spec", "read_metadata", "read_spec"]

_IDENTIFIER = b"TFL3"
# Bytes of an element by TensorType, rounded up; a type that is not listed counts as 16, the most there is.
_ELEMENT_BYTES = {0: 4, 1: 2, 2: 4, 3: 1, 4: 8, 6: 1, 7: 2, 8: 8, 9: 1, 10: 8, 12: 8, 15: 4, 16: 2, 17: 1}
# The zero points of uint8, int8, int16 and int32 tensors, by TensorType.
_ZERO_POINTS = {3: (0, 255), 9: (-128, 127), 7: (0, 0), 2: (0, 0)}
_DAMAGED = (IndexError, TypeError, OverflowError, ValueError, struct.error)


def read_spec(path: Path) -> ModelSpec:
    """Return the ModelSpec of a TFLite file.

    Raises:
        ModelError: the file cannot be read, is not a TFLite file, or has no ModelSpec.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}") from None
    return parse_tflite_spec(path, content)


def parse_tflite_spec(path: Path, content: bytes) -> ModelSpec:
    """Return the ModelSpec in the bytes of a TFLite file.

    Args:
        path: path of the file, for messages.
        content: the bytes of the file.

    Raises:
        ModelError: the bytes are not a TFLite file, or hold no ModelSpec.
    """
    try:
        found = read_metadata(content)
    except ValueError as error:
        raise ModelError(f"{path} is not a TFLite file: {error}") from None
    document = found.get(METADATA_KEY)
    return parse_spec(path, None if document is None else decode_document(document))


def check_tflite(path: Path, content: bytes) -> None:
    """Refuse a TFLite file that is not whole in itself, or that asks for more memory than a model may.

    Args:
        path: path of the file, for messages.
        content: the bytes of the file.

    Raises:
        ModelError: the bytes are not a TFLite file; ``capsule_edge`` is there twice; weights lie in another file; a
            tensor is too large, or has a scale or zero point that TFLite does not allow.
    """
    try:
        model = Table(content, encode.Get(packer.uoffset, content, 0))
        names = [_bytes(entry, 0) for entry in _tables(model, 6)]
        # Model.external_buffer_groups and Model.external_buffers
        external = bool(_tables(model, 8) or _tables(model, 9))
        tensors = [_tensor(tensor) for graph in _tables(model, 2) for tensor in _tables(graph, 0)]
    except _DAMAGED as error:
        raise ModelError(f"{path} is not a TFLite file: its tables are damaged ({error})") from None
    check_single(path, names.count(METADATA_KEY.encode()))
    if external:
        refuse_external(path, "its weights", "convert the model again with its weights inside")
    for tensor in tensors:
        sides = tensor.sides
        check_size(path, f"tensor {tensor.name!r} of shape {tuple(sides)}", sides, tensor.element_bytes)
        check_positive(path, tensor.name, tensor.scales)
        _check_zeros(path, tensor)


@dataclass(frozen=True)
class _Tensor:
    """A tensor as the checks need it: its ``TensorType``, shape, and parameters of quantisation."""

    name: str
    kind: int
    sides: list[int]
    scales: npt.NDArray[np.float32]
    zeros: npt.NDArray[np.int64]

    @property
    def element_bytes(self) -> int:
        return _ELEMENT_BYTES.get(self.kind, 16)


def _tensor(table: Table) -> _Tensor:
    at, quantisation = _field(table, 1), _field(table, 4)
    scales = zeros = b""
    if quantisation:
        parameters = Table(table.Bytes, table.Indirect(quantisation))
        scales, zeros = _bytes(parameters, 2, 4), _bytes(parameters, 3, 8)
    return _Tensor(
        name=_bytes(table, 3).decode("utf-8", "replace"),
        kind=encode.Get(packer.int8, table.Bytes, at) if at else 0,
        sides=np.frombuffer(_bytes(table, 0, 4), "<i4").tolist(),
        scales=np.frombuffer(scales, "<f4"),
        zeros=np.frombuffer(zeros, "<i8"),
    )


def _check_zeros(path: Path, tensor: _Tensor) -> None:
    """Check zero points as TFLite's 8-bit specification has them (tensorflow.org/lite/performance/quantization_spec).

    They are 0 with a scale for each channel, and a value of the type otherwise. XNNPACK finds that out when it first
    runs the model, other kernels never.
    """
    low, high = _ZERO_POINTS.get(tensor.kind, (-(2**63), 2**63 - 1))
    if len(tensor.scales) > 1:
        low = high = 0
    wrong = tensor.zeros[(tensor.zeros < low) | (tensor.zeros > high)]
    if len(wrong):
        raise ModelError(
            f"{path}: a zero point of {tensor.name!r} is {wrong[0]}, allowed is {low} to {high}",
            hint="the file is damaged or was not exported by capsule-edge; copy it or export it again",
        )


def read_metadata(content: bytes) -> dict[str, bytes]:
    """Return the metadata of a TFLite file: the bytes of each entry by its name.

    Args:
        content: the bytes of the file.

    Raises:
        ValueError: the bytes are not a TFLite flatbuffer.
    """
    if len(content) < 8 or content[4:8] != _IDENTIFIER:
        raise ValueError("it lacks the identifier of a TFLite flatbuffer")
    try:
        model = Table(content, encode.Get(packer.uoffset, content, 0))
        buffers, entries = _tables(model, 4), _tables(model, 6)
        return {
            _bytes(entry, 0).decode("utf-8", "replace"): _bytes(buffers[_number(entry, 1)], 0)
            for entry in entries
        }
    except _DAMAGED as error:
        raise ValueError(f"its tables are damaged ({error})") from None


def _field(table: Table, number: int) -> int:
    """Return the position of a field in the bytes, 0 if the table lacks it."""
    offset = table.Offset(4 + 2 * number)
    return int(table.Pos + offset) if offset else 0


def _tables(table: Table, number: int) -> list[Table]:
    at = _field(table, number)
    if not at:
        return []
    start, length = table.Vector(at - table.Pos), table.VectorLen(at - table.Pos)
    return [Table(table.Bytes, table.Indirect(start + 4 * index)) for index in range(length)]


def _bytes(table: Table, number: int, size: int = 1) -> bytes:
    """Return the bytes of a vector whose entries have ``size`` bytes each; empty if the table lacks it."""
    at = _field(table, number)
    if not at:
        return b""
    start, length = table.Vector(at - table.Pos), table.VectorLen(at - table.Pos)
    found = bytes(table.Bytes[start : start + size * length])
    if len(found) != size * length:
        raise IndexError("a vector goes beyond the end of the file")
    return found


def _number(table: Table, number: int) -> int:
    at = _field(table, number)
    return int(encode.Get(packer.uint32, table.Bytes, at)) if at else 0
