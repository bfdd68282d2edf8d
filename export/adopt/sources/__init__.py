"""Convert classifiers of Keras 3, tf_keras, SavedModel and float TFLite to float ONNX and TFLite, in processes apart.

In: a model file or folder. Out: an ONNX file, a TFLite file and what the source says about itself (``SourceFacts``).
Must not know: labels, frames, quantisation, the contract of our files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from capsule_edge.runtime.lazy import lazy_names

if TYPE_CHECKING:
    from .conversion import to_onnx
    from .file_kinds import recognise
    from .framework_process import FrameworkProcess
    from .keras_models import read_keras
    from .request_loop import serve_own_stdout, serve_requests
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        conversion="to_onnx",
        file_kinds="recognise",
        framework_process="FrameworkProcess",
        keras_models="read_keras",
        request_loop="serve_own_stdout serve_requests",
    )

__all__ = ["FrameworkProcess", "read_keras", "recognise", "serve_own_stdout", "serve_requests", "to_onnx"]
