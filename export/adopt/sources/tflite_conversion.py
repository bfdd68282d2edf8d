"""Turn a TensorFlow function into a float TFLite file with TensorFlow's converter. Runs in a child process."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from capsule_edge.runtime.errors import ModelError

from .loaded_model import PictureShape
from .tensorflow_graph import trace

__all__ = ["describe_refusal", "function_to_tflite"]

# The line on which the converter lists what TFLite's own operators do not compute: "TF Select ops: Erfc, Lgamma".
_LACKING = re.compile(r"^\s*(?:TF Select|Flex|Custom) ops: *(.+)$", re.MULTILINE)


def function_to_tflite(path: Path, call: Callable[[Any], Any], shape: PictureShape) -> bytes:
    """Convert a function of one tensor to TFLite, in float32 and with TFLite's own operators alone.

    Args:
        path: the source, for messages.
        call: answers a float32 tensor (N, ...) with a tensor (N, labels).
        shape: the input of ``call``.

    Returns:
        The bytes of the file.

    Raises:
        ModelError: an operation has no operator of TFLite, or the converter fails otherwise.
    """
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_concrete_functions([trace(call, shape)])
    try:
        return bytes(converter.convert())
    except Exception as error:  # the converter raises exceptions of several kinds
        raise ModelError(describe_refusal(path, str(error))) from None


def describe_refusal(path: Path, message: str) -> str:
    """Return in one line why the converter refused a function.

    Args:
        path: the source.
        message: the converter's message, of many lines.
    """
    lacking = ", ".join(
        dict.fromkeys(name.strip() for line in _LACKING.findall(message) for name in line.split(","))
    )
    if lacking:
        return f"{path} computes {lacking}, which TFLite's own operators do not compute"
    return f"TensorFlow cannot convert {path} to TFLite: {' '.join(message.split())[:200]}"
