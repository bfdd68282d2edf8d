"""Call Keras models and exported files in the same way: uint8 frames in, outputs by name out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from capsule_edge.runtime.inference import Backend, open_model

from .contract import OUTPUTS, FrameArray, Outputs, Runner, scale_pixels

__all__ = ["file_runner", "in_batches", "keras_runner", "open_file"]


def keras_runner(model: Any) -> Runner:
    """Return a runner of a Keras model, FP32 or QAT. Its only output is ``logits``."""

    def run(frames: FrameArray) -> Outputs:
        return {"logits": np.asarray(model(scale_pixels(frames), training=False), np.float32)}

    return run


def open_file(path: Path) -> Backend:
    """Open an exported file in the engine that users run: onnxruntime for ONNX, LiteRT for TFLite.

    TensorFlow's own TFLite interpreter rounds the last layer differently, so it is not used.

    Raises:
        ModelError: The file cannot be read or does not keep the contract.
    """
    return open_model(path, backend="litert" if path.suffix == ".tflite" else "onnxruntime")


def file_runner(backend: Backend) -> Runner:
    """Return a runner of an opened file, with the three outputs of the contract."""

    def run(frames: FrameArray) -> Outputs:
        answer = backend.run(frames)
        return {name: getattr(answer, name) for name in OUTPUTS}

    return run


def in_batches(run: Runner, frames: FrameArray, *, batch: int = 16) -> Outputs:
    """Run a model on all frames, ``batch`` at a time.

    Args:
        run: The model.
        frames: uint8 RGB (N, size, size, 3), N at least 1.
        batch: Frames in each call; the last call may get fewer.

    Returns:
        Each output for all N frames.
    """
    parts = [run(frames[start : start + batch]) for start in range(0, len(frames), batch)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
