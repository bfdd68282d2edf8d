"""INT8 files, written from plain integers: the integer model, post-training quantisation, ONNX and TFLite.

In: a quantisation-aware Keras model. Out: ONNX and TFLite bytes with equal integers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from capsule_edge.runtime.lazy import lazy_names

if TYPE_CHECKING:
    from .integers import IntegerModel, IntegerNode, IntegerTensor, Kernel, read_integers
    from .onnx import build_int8_onnx
    from .post_training import METHODS, quantize_after_training
    from .reference import Integers, check_layers, compute, compute_node, reference_runner, round_sums
    from .tflite import build_int8_tflite, finish
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        integers="IntegerModel IntegerNode IntegerTensor Kernel read_integers",
        onnx="build_int8_onnx",
        post_training="METHODS quantize_after_training",
        reference="Integers check_layers compute compute_node reference_runner round_sums",
        tflite="build_int8_tflite finish",
    )

__all__ = [
    "METHODS",
    "IntegerModel",
    "IntegerNode",
    "IntegerTensor",
    "Integers",
    "Kernel",
    "build_int8_onnx",
    "build_int8_tflite",
    "check_layers",
    "compute",
    "compute_node",
    "finish",
    "quantize_after_training",
    "read_integers",
    "reference_runner",
    "round_sums",
]
