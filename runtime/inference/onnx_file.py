"""Check an ONNX file before an engine opens it, from the file's own bytes and without the package ``onnx``.

An ONNX file is a protobuf message (https://protobuf.dev/programming-guides/encoding). Engines take more from it than
this project allows: they read tensors from other files (external data) and reserve whatever memory the file asks for.
The field numbers are those of onnx/onnx.proto; a test compares them with the package ``onnx``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..errors import ModelError
from .model_limits import MAX_TENSOR_BYTES, check_positive, check_single, check_size, refuse_external
from .spec import METADATA_KEY
from .spec_document import decode_document

__all__ = ["CHILDREN", "MAX_FIELDS", "check_onnx"]

# A model of 450 tensors has 4,000 fields. The limit bounds the time that a hostile file can take.
MAX_FIELDS = 1_000_000
# Depth of nested messages at which protobuf's own parsers stop.
_MAX_DEPTH = 100

# The fields through which a tensor or the metadata can be reached, by message: field number and message.
CHILDREN = {
    "ModelProto": {
        7: "GraphProto",
        14: "StringStringEntryProto",
        20: "TrainingInfoProto",
        25: "FunctionProto",
    },
    "TrainingInfoProto": {1: "GraphProto", 2: "GraphProto"},
    "FunctionProto": {7: "NodeProto", 11: "AttributeProto"},
    "GraphProto": {1: "NodeProto", 5: "TensorProto", 15: "SparseTensorProto"},
    "NodeProto": {5: "AttributeProto"},
    "AttributeProto": {
        5: "TensorProto",
        6: "GraphProto",
        10: "TensorProto",
        11: "GraphProto",
        22: "SparseTensorProto",
        23: "SparseTensorProto",
    },
    "SparseTensorProto": {1: "TensorProto", 2: "TensorProto"},
}
# How to read small tensors by TensorProto.DataType: float32 and int64.
_NUMBERS = {1: "<f4", 7: "<i8"}
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_EXTERNAL = 1
# Suffixes of models that other programs write.
_FOREIGN = {".keras", ".h5", ".hdf5", ".pt", ".pth", ".pb"}
# Bytes of an element by TensorProto.DataType, rounded up; a type that is not listed counts as 16, the most there is.
_ELEMENT_BYTES = {1: 4, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8, 12: 4, 13: 8, 14: 8, 16: 2}
# The inputs that are scales, by operator (onnx/docs/Operators.md).
_SCALES = {
    "QuantizeLinear": (1,),
    "DequantizeLinear": (1,),
    "QLinearConv": (1, 4, 6),
    "QLinearMatMul": (1, 4, 6),
    "QLinearAdd": (1, 4, 6),
    "QLinearGlobalAveragePool": (1, 3),
}
# The inputs that say how large the result is, by operator. Without batch the result has at least the product of the
# numbers as elements, or with Pad the product of what it adds along each side.
_SIZES = {
    "ConstantOfShape": (0,),
    "Expand": (1,),
    "Tile": (1,),
    "Resize": (2, 3),
    "Upsample": (1,),
    "Pad": (1,),
}


@dataclass
class _Findings:
    """The findings of a walk over the messages.

    Attributes:
        metadata: how many entries are named ``capsule_edge``.
        values: the bytes of small tensors by name, with their type.
        scales: the names of tensors that are scales.
        sizes: the names of tensors that give the size of a result, each with the operator.
    """

    metadata: int = 0
    values: dict[str, tuple[int, memoryview]] = field(default_factory=dict)
    scales: set[str] = field(default_factory=set)
    sizes: list[tuple[str, str]] = field(default_factory=list)


class _DamageError(ValueError):
    """The bytes are not a protobuf message."""


def check_onnx(path: Path, content: bytes) -> None:
    """Refuse an ONNX file that is not whole in itself, or that asks for more memory than a model may.

    Args:
        path: path of the file, for messages.
        content: the bytes of the file.

    Raises:
        ModelError: the bytes are not an ONNX file; a tensor lies in another file, is larger than
            ``MAX_TENSOR_BYTES``, or is a scale that is not a positive number; ``capsule_edge`` is there twice.
    """
    found = _Findings()
    try:
        _walk(path, memoryview(content), found)
    except _DamageError as error:
        foreign = path.suffix.lower() in _FOREIGN
        raise ModelError(
            f"{path} is not an ONNX file: {error}",
            hint="a model that was trained elsewhere has to be adopted first: capsule-edge adopt"
            if foreign
            else "name a model file, or standard or small; if the file was copied, copy it again",
        ) from None
    check_single(path, found.metadata)
    _check_scales(path, found)
    _check_sizes(path, found)


def _walk(path: Path, content: memoryview, found: _Findings) -> None:
    """Visit all messages of ``CHILDREN`` without recursion, and gather the findings."""
    pending, budget = [("ModelProto", content, 1)], MAX_FIELDS
    while pending:
        kind, message, depth = pending.pop()
        children, fields = CHILDREN.get(kind, {}), []
        for number, wire, value in _fields(message):
            budget -= 1
            if budget < 0 or depth > _MAX_DEPTH:
                raise _DamageError(f"it has more than {MAX_FIELDS:,} fields or {_MAX_DEPTH} levels")
            fields.append((number, wire, value))
            # Protobuf skips a field of another wire type as unknown.
            if number in children and isinstance(value, memoryview) and wire == _BYTES:
                pending.append((children[number], value, depth + 1))
        if kind == "TensorProto":
            _tensor(path, fields, found)
        elif kind == "NodeProto":
            _node(path, fields, found)
        elif kind == "StringStringEntryProto":
            _entry(fields, found)


_Field = tuple[int, int, int | memoryview]


def _fields(message: memoryview) -> Iterator[_Field]:
    """Yield field number, wire type and value of each field of a message."""
    at, end = 0, len(message)
    while at < end:
        tag, at = _varint(message, at)
        number, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            value, at = _varint(message, at)
            yield number, wire, value
            continue
        if wire == _BYTES:
            size, at = _varint(message, at)
        elif wire in (_FIXED32, _FIXED64):
            size = 4 if wire == _FIXED32 else 8
        else:
            raise _DamageError(f"a field has the wire type {wire}")
        if number == 0 or size > end - at:
            raise _DamageError("a field goes beyond the end of its message")
        yield number, wire, message[at : at + size]
        at += size


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """Return an unsigned number of up to 64 bits, and the position behind it."""
    value = 0
    if at < len(message) and message[at] < 0x80:
        return message[at], at + 1
    for count, byte in enumerate(message[at : at + 10]):
        value |= (byte & 0x7F) << (7 * count)
        if byte < 0x80:
            return value & (2**64 - 1), at + count + 1
    raise _DamageError("a number is not whole")


def _texts(fields: list[_Field], number: int) -> list[str]:
    """Return the texts of a field, in order."""
    return [
        bytes(value).decode("utf-8", "replace")
        for found, _, value in fields
        if found == number and isinstance(value, memoryview)
    ]


def _numbers(fields: list[_Field], number: int) -> list[int]:
    """Return the integers of a repeated field, packed or not, as signed 64-bit numbers."""
    found: list[int] = []
    for named, wire, value in fields:
        if named != number:
            continue
        if isinstance(value, int):
            found.append(value)
        elif wire == _BYTES:
            at = 0
            while at < len(value):
                entry, at = _varint(value, at)
                found.append(entry)
    return [value - 2**64 if value >= 2**63 else value for value in found]


def _tensor(path: Path, fields: list[_Field], found: _Findings) -> None:
    """Check where a tensor's values lie and how large it is; keep the bytes of a small one."""
    name = (_texts(fields, 8) or [""])[-1]
    if _EXTERNAL in _numbers(fields, 14) or any(number == 13 for number, _, _ in fields):
        refuse_external(
            path,
            f"the values of tensor {name!r}",
            "save the model with its weights inside: onnx.save(onnx.load(FILE), OTHER)",
        )
    dims, kind = _numbers(fields, 1), (_numbers(fields, 2) or [0])[-1]
    check_size(path, f"tensor {name!r} of shape {tuple(dims)}", dims, _ELEMENT_BYTES.get(kind, 16))
    if math.prod(dims) <= 65536:
        _keep(name, kind, fields, found)


def _keep(name: str, kind: int, fields: list[_Field], found: _Findings) -> None:
    """Keep a tensor's values as bytes: raw, or of the typed field for float32 and int64."""
    values = [value for number, _, value in fields if number == 9 and isinstance(value, memoryview)]
    if not values and kind == 1:
        values = [
            memoryview(b"".join(value for n, _, value in fields if n == 4 and isinstance(value, memoryview)))
        ]
    elif not values and kind == 7:
        numbers = _numbers(fields, 7)
        values = [memoryview(np.array(numbers, np.int64).tobytes())] if numbers else []
    if values:
        found.values[name] = kind, values[-1]


def _entry(fields: list[_Field], found: _Findings) -> None:
    """Count an entry of the metadata that is ours; engines want all of them in UTF-8."""
    for _, _, value in fields:
        if isinstance(value, memoryview):
            decode_document(bytes(value))
    found.metadata += _texts(fields, 1)[-1:] == [METADATA_KEY]


def _node(path: Path, fields: list[_Field], found: _Findings) -> None:
    """Note which inputs of a node are scales or sizes, and read a constant under the name of its output."""
    inputs, kind = _texts(fields, 1), (_texts(fields, 4) or [""])[-1]
    found.scales |= {inputs[at] for at in _SCALES.get(kind, ()) if at < len(inputs)}
    found.sizes += [(inputs[at], kind) for at in _SIZES.get(kind, ()) if at < len(inputs)]
    if kind == "Constant":
        for number, _, value in fields:
            if number == 5 and isinstance(value, memoryview):
                _constant(path, value, (_texts(fields, 2) or [""])[0], found)


def _constant(path: Path, attribute: memoryview, name: str, found: _Findings) -> None:
    for number, wire, value in _fields(attribute):
        if number == 5 and wire == _BYTES and isinstance(value, memoryview):
            fields = [entry for entry in _fields(value) if entry[0] != 8]
            _tensor(path, [*fields, (8, _BYTES, memoryview(name.encode()))], found)


def _check_scales(path: Path, found: _Findings) -> None:
    for name in sorted(found.scales & found.values.keys()):
        kind, content = found.values[name]
        if kind == 1 and len(content) % 4 == 0:
            check_positive(path, name, np.frombuffer(content, "<f4"))


def _check_sizes(path: Path, found: _Findings) -> None:
    for name, operator in found.sizes:
        kind, content = found.values.get(name, (0, memoryview(b"")))
        if kind not in _NUMBERS or len(content) % np.dtype(_NUMBERS[kind]).itemsize:
            continue
        numbers = np.abs(np.frombuffer(content, _NUMBERS[kind]).astype(np.float64))
        if operator == "Pad" and len(numbers) % 2 == 0:
            numbers = 1 + numbers.reshape(2, -1).sum(axis=0)
        # Expand takes 1, and Resize 0, for "as it was".
        least = math.prod(number for number in numbers.tolist() if number > 0)
        if not least <= MAX_TENSOR_BYTES:
            shown = ", ".join(f"{number:g}" for number in numbers[:8])
            raise ModelError(
                f"{path}: {operator} makes a tensor of at least {least:.3g} elements ({name!r}: {shown}),"
                f" allowed are {MAX_TENSOR_BYTES:,} bytes",
                hint="the file is damaged, or is not a model for this program",
            )
