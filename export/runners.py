"""Everything that answers frames behind one call: Keras models, and files of both formats."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from capsule_edge.runtime.backends import open_model
from capsule_edge.runtime.errors import ModelError
from capsule_edge.runtime.tflite_metadata import read_spec

from .keras_models import OUTPUTS

__all__ = ["Frames", "Outputs", "Runner", "in_batches", "keras_runner", "onnx_runner", "tflite_runner"]

Frames = npt.NDArray[np.uint8]
Outputs = Mapping[str, npt.NDArray[np.float32]]
Runner = Callable[[Frames], Outputs]


def keras_runner(model: Any) -> Runner:
    """``logits`` of a Keras model, FP32 or QAT, for uint8 frames (N, s, s, 3)."""

    def run(frames: Frames) -> Outputs:
        pixels = (frames.astype(np.float32) - 128) / 128
        return {"logits": np.asarray(model(pixels, training=False), np.float32)}

    return run


def onnx_runner(path: Path) -> Runner:
    """The three outputs of an ONNX file, through the backend that users run; ``ModelError`` as there."""
    backend = open_model(path)

    def run(frames: Frames) -> Outputs:
        answer = backend.run(frames)
        return {name: getattr(answer, name) for name in OUTPUTS}

    return run


def tflite_runner(path: Path) -> Runner:
    """The three outputs of a TFLite file, through its signature.

    Raises ``ModelError`` when the file breaks the contract: spec, names, types, shapes, dynamic batch.
    """
    import tensorflow as tf

    spec = read_spec(path)
    try:
        interpreter = tf.lite.Interpreter(model_path=str(path))
        signature = interpreter.get_signature_runner("serving_default")
    except (ValueError, RuntimeError) as error:
        raise ModelError(f"{path} cannot be run by TFLite: {str(error).splitlines()[0]}") from None
    inputs, outputs = signature.get_input_details(), signature.get_output_details()
    size, labels = spec.input.size, len(spec.labels)
    found = {name: (np.dtype(d["dtype"]).name, [*d["shape_signature"]]) for name, d in inputs.items()}
    if found != {"frames": ("uint8", [-1, size, size, 3])}:
        raise ModelError(f"{path}: inputs are {found}, needed is frames, uint8 [-1, {size}, {size}, 3]")
    for name in OUTPUTS:
        shape = [*outputs[name]["shape_signature"]] if name in outputs else []
        if not shape or shape[0] != -1 or shape[-1] != labels or outputs[name]["dtype"] != np.float32:
            raise ModelError(
                f"{path}: output {name!r} is {shape or 'absent'}, needed is float32 (-1, ..., {labels})"
            )

    def run(frames: Frames) -> Outputs:
        answer = signature(frames=frames)
        # The interpreter's memory is its own: the next call writes over it.
        return {name: np.array(answer[name], np.float32) for name in OUTPUTS}

    return run


def in_batches(run: Runner, frames: Frames, *, batch: int = 16) -> Outputs:
    """All frames' outputs, a batch at a time."""
    parts = [run(frames[start : start + batch]) for start in range(0, len(frames), batch)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
