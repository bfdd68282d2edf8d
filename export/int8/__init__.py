"""Write the INT8 files from one set of plain integers, made by QAT or by quantisation after training.

In: a quantised Keras model and its ``ModelSpec``. Out: ONNX and TFLite bytes with equal integers.
Must not know: RUN folders, data sets, certificates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from capsule_edge.runtime.lazy import lazy_names

if TYPE_CHECKING:
    from .integers import IntegerModel, IntegerNode, IntegerTensor, Kernel, read_integers
    from .onnx import build_int8_onnx
    from .post_training import quantize_after_training
    from .range_methods import BINS, METHODS, widened
    from .reference import (
        Integers,
        check_layers,
        compute,
        compute_node,
        quantize_pixels,
        reference_runner,
        round_sums,
    )
    from .tflite import build_int8_tflite
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        integers="IntegerModel IntegerNode IntegerTensor Kernel read_integers",
        onnx="build_int8_onnx",
        post_training="quantize_after_training",
        range_methods="BINS METHODS widened",
        reference="Integers check_layers compute compute_node quantize_pixels reference_runner round_sums",
        tflite="build_int8_tflite",
    )

__all__ = [
    "BINS",
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
    "quantize_after_training",
    "quantize_pixels",
    "read_integers",
    "reference_runner",
    "round_sums",
    "widened",
]
