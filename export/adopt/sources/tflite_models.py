"""Load a float TFLite file with LiteRT, and convert it through tf2onnx. Runs in a child process."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from capsule_edge.runtime.errors import ModelError

from ..facts import Floats
from .loaded_model import LoadedModel, as_floats, read_shape
from .tensorflow_graph import OPSET, call_tf2onnx

__all__ = ["load_tflite"]

# Types of tensors that hold shapes, places and conditions, beside float32.
_ALLOWED = ("float32", "int32", "int64", "bool")


def load_tflite(path: Path) -> LoadedModel:
    """Load a TFLite classifier of float weights.

    Args:
        path: the file.

    Raises:
        ModelError: LiteRT cannot open the file, it is quantised, or it is no classifier of pictures.
    """
    from ai_edge_litert.interpreter import Interpreter

    try:
        # Without delegates every tensor is computed as the file says.
        interpreter = Interpreter(str(path), num_threads=1)
        interpreter.allocate_tensors()
    except Exception as error:  # LiteRT raises exceptions of several kinds
        raise ModelError(f"LiteRT cannot open {path}: {' '.join(str(error).split())[:300]}") from None
    _check_types(path, interpreter.get_tensor_details())
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
    shape = read_shape(
        path,
        [
            (entry["name"], [None, *entry["shape"].tolist()[1:]], np.dtype(entry["dtype"]).name)
            for entry in inputs
        ],
        [(entry["name"], [None, *entry["shape"].tolist()[1:]]) for entry in outputs],
        None,
    )

    def answer(batch: Floats) -> Floats:
        rows = []
        for frame in batch:
            interpreter.set_tensor(inputs[0]["index"], frame[None])
            interpreter.invoke()
            rows.append(as_floats(interpreter.get_tensor(outputs[0]["index"]))[0])
        return np.stack(rows)

    facts = {"scaling": None, "channels": None, "outputs": None, "notes": ()}
    return LoadedModel(path, shape, answer, lambda: _convert(path), facts, tflite=path.read_bytes)


def _check_types(path: Path, tensors: list[dict[str, Any]]) -> None:
    for tensor in tensors:
        kind = np.dtype(tensor["dtype"]).name
        if kind not in _ALLOWED:
            raise ModelError(
                f"{path}: the tensor {tensor['name']!r} is {kind}, allowed is float32",
                hint="convert the model to TFLite again without optimizations (no quantisation, no float16)",
            )


def _convert(path: Path) -> onnx.ModelProto:
    import tf2onnx

    logging.getLogger("tf2onnx").setLevel(
        logging.CRITICAL
    )  # what it does not support is refused by its operator
    return call_tf2onnx(tf2onnx.convert.from_tflite, str(path), opset=OPSET)
