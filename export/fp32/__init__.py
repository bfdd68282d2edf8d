"""Write the FP32 files: the serving model with calibrated outputs, as ONNX and TFLite.

In: a trained Keras model and its ``ModelSpec``. Out: ONNX and TFLite bytes.
Must not know: quantisation, RUN folders.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from capsule_edge.runtime.lazy import lazy_names

if TYPE_CHECKING:
    from .onnx import build_fp32_onnx
    from .serving import ServingModel
    from .tflite import build_fp32_tflite
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        onnx="build_fp32_onnx",
        serving="ServingModel",
        tflite="build_fp32_tflite",
    )

__all__ = ["ServingModel", "build_fp32_onnx", "build_fp32_tflite"]
