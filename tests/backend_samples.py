"""The files that every backend is tried on."""

from __future__ import annotations

from pathlib import Path

from capsule_edge.runtime.inference import BACKENDS

SIZE = 64


SUFFIX = {"ONNX": "onnx", "TFLite": "tflite"}


PRECISIONS = ("fp32", "int8")


def file_of(bundle: Path, engine: str, precision: str) -> Path:
    return bundle / f"model.{precision}.{SUFFIX[BACKENDS[engine].reads]}"
