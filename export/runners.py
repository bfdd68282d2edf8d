"""Everything that answers frames behind one call: Keras models, and files of both formats."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from capsule_edge.runtime.inference import Backend, open_model

from .fp32 import OUTPUTS

__all__ = ["Frames", "Outputs", "Runner", "file_runner", "in_batches", "keras_runner", "open_file"]

Frames = npt.NDArray[np.uint8]
Outputs = Mapping[str, npt.NDArray[np.float32]]
Runner = Callable[[Frames], Outputs]


def keras_runner(model: Any) -> Runner:
    """``logits`` of a Keras model, FP32 or QAT, for uint8 frames (N, s, s, 3)."""

    def run(frames: Frames) -> Outputs:
        pixels = (frames.astype(np.float32) - 128) / 128
        return {"logits": np.asarray(model(pixels, training=False), np.float32)}

    return run


def open_file(path: Path) -> Backend:
    """An exported file in the engine that users run; ``ModelError`` as there.

    A TFLite file runs in LiteRT: TensorFlow's own interpreter rounds the last layer otherwise.
    """
    return open_model(path, backend="litert" if path.suffix == ".tflite" else "onnxruntime")


def file_runner(backend: Backend) -> Runner:
    """The three outputs of an opened file."""

    def run(frames: Frames) -> Outputs:
        answer = backend.run(frames)
        return {name: getattr(answer, name) for name in OUTPUTS}

    return run


def in_batches(run: Runner, frames: Frames, *, batch: int = 16) -> Outputs:
    """All frames' outputs, a batch at a time."""
    parts = [run(frames[start : start + batch]) for start in range(0, len(frames), batch)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
