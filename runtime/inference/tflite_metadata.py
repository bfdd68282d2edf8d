"""Read the ModelSpec in a TFLite file: the metadata entry ``capsule_edge``, whose buffer holds the JSON.

This needs only the package ``flatbuffers``, which onnxruntime and LiteRT install. The field numbers are those of
TFLite's schema (tensorflow/compiler/mlir/lite/schema/schema.fbs): ``Model.buffers`` 4, ``Model.metadata`` 6,
``Metadata.name`` 0, ``Metadata.buffer`` 1, ``Buffer.data`` 0.
"""

from __future__ import annotations

import struct
from pathlib import Path

from flatbuffers import encode, packer
from flatbuffers.table import Table

from ..errors import ModelError
from .backend import parse_spec
from .spec import METADATA_KEY, ModelSpec

__all__ = ["parse_tflite_spec", "read_metadata", "read_spec"]

_IDENTIFIER = b"TFL3"


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
    return parse_spec(path, None if document is None else document.decode("utf-8", "replace"))


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
    except (IndexError, TypeError, OverflowError, struct.error) as error:
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


def _bytes(table: Table, number: int) -> bytes:
    at = _field(table, number)
    if not at:
        return b""
    start, length = table.Vector(at - table.Pos), table.VectorLen(at - table.Pos)
    return bytes(table.Bytes[start : start + length])


def _number(table: Table, number: int) -> int:
    at = _field(table, number)
    return int(encode.Get(packer.uint32, table.Bytes, at)) if at else 0
