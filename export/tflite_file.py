"""TFLite files as flatbuffers: read one into objects, write objects with a ``ModelSpec`` in the metadata.

The schema is that of ``ai_edge_litert``, the public package; TensorFlow's copy lies in a private module.
"""

from __future__ import annotations

from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from capsule_edge.runtime.inference import METADATA_KEY, ModelSpec

__all__ = ["pack_tflite", "unpack_tflite"]


def unpack_tflite(content: bytes) -> Any:
    """Return the ``schema.ModelT`` of a TFLite file's bytes."""
    return schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))


def pack_tflite(model: Any, spec: ModelSpec) -> bytes:
    """Return the bytes of a TFLite file with ``spec`` in its metadata.

    Args:
        model: A ``schema.ModelT``. Its metadata entry of ours is replaced, or added where there is none.
        spec: The ModelSpec that the file carries.
    """
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
