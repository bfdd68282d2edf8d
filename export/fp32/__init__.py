"""FP32 files: the serving model with calibrated outputs, as ONNX and TFLite.

In: a trained Keras model and its ``ModelSpec``. Out: ONNX and TFLite bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from capsule_edge.runtime.lazy import lazy_names

if TYPE_CHECKING:
    from .onnx import build_fp32_onnx
    from .serving import OUTPUTS, ServingModel
    from .tflite import build_fp32_tflite
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        onnx="build_fp32_onnx",
        serving="OUTPUTS ServingModel",
        tflite="build_fp32_tflite",
    )

__all__ = ["OUTPUTS", "ServingModel", "build_fp32_onnx", "build_fp32_tflite"]
