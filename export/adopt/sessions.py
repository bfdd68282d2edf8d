"""Open ONNX models in onnxruntime on the CPU, for everything that an adoption computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import onnx
import onnxruntime as ort
from onnx import TensorProto, helper

__all__ = ["open_session", "with_outputs"]

Optimisation = Literal["none", "basic", "all"]


def open_session(proto: onnx.ModelProto, *, optimise: Optimisation = "all", save: Path | None = None) -> Any:
    """Open a model.

    Args:
        proto: The model.
        optimise: How much onnxruntime may change the graph. ``basic`` keeps to the operators of ONNX.
        save: Where to write the optimised model.
    """
    options = ort.SessionOptions()
    # Fatal only: an error is raised as well.
    options.log_severity_level = 4
    # Threads that spin would hold up every other program on a busy machine, and themselves.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Without VNNI, 8-bit products would saturate in 16 bits; INT8 files are opened so too (``runtime.inference``).
    options.add_session_config_entry("session.x64quantprecision", "1")
    level = ort.GraphOptimizationLevel
    options.graph_optimization_level = {
        "none": level.ORT_DISABLE_ALL,
        "basic": level.ORT_ENABLE_BASIC,
        "all": level.ORT_ENABLE_ALL,
    }[optimise]
    if save is not None:
        options.optimized_model_filepath = str(save)
    return ort.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"], enable_fallback=0
    )


def with_outputs(proto: onnx.ModelProto, *names: str) -> onnx.ModelProto:
    """Return a copy of a model that answers with these float values."""
    shown = onnx.ModelProto()
    shown.CopyFrom(proto)
    del shown.graph.output[:]
    shown.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)
    return shown
