"""Write the FP32 TFLite file through TensorFlow's converter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from capsule_edge.runtime.inference import ModelSpec

from ..tflite_file import pack_tflite, unpack_tflite
from .serving import ServingModel

__all__ = ["build_fp32_tflite"]


def build_fp32_tflite(
    serving: ServingModel, spec: ModelSpec, *, configure: Callable[[Any], None] = lambda _: None
) -> bytes:
    """Build the FP32 TFLite file.

    Args:
        serving: The FP32 model with the outputs of the contract.
        spec: The ModelSpec to write into the file's metadata.
        configure: Called with the ``tf.lite.TFLiteConverter`` before it converts, to set options such as
            FP16 weights. By default the converter keeps float32.

    Returns:
        The file's bytes. Signature ``serving_default``: ``frames``, uint8 (N, size, size, 3), to the three
        float32 outputs of the contract.
    """
    function = serving.serve.get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], serving)
    configure(converter)
    return pack_tflite(unpack_tflite(converter.convert()), spec)
