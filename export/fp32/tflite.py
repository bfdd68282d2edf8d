"""The FP32 TFLite file, through TensorFlow's converter, with the ModelSpec added to it."""

from __future__ import annotations

import tensorflow as tf
from tensorflow.lite.python import schema_py_generated as schema

from capsule_edge.runtime.inference import ModelSpec

from ..int8 import finish
from .serving import ServingModel

__all__ = ["build_fp32_tflite"]


def build_fp32_tflite(serving: ServingModel, spec: ModelSpec) -> bytes:
    """The file: signature ``serving_default``, from ``frames`` uint8 (N, s, s, 3) to the three outputs."""
    function = serving.serve.get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], serving)
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(converter.convert(), 0))
    return finish(model, spec)
