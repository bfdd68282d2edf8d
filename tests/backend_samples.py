"""The model files on which every backend is tested."""

from __future__ import annotations

from pathlib import Path

from capsule_edge.runtime.inference import BACKENDS

SIZE = 64


SUFFIX = {"ONNX": "onnx", "TFLite": "tflite"}


PRECISIONS = ("fp32", "int8")


def file_of(bundle: Path, engine: str, precision: str) -> Path:
    """Return the file of an exported bundle that the engine reads."""
    return bundle / f"model.{precision}.{SUFFIX[BACKENDS[engine].reads]}"
