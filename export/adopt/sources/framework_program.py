"""The child of ``framework_process``: load a model, write it as ONNX, and answer batches with its own framework.

    python -m capsule_edge.export.adopt.sources.framework_program keras

Requests are ``{"do": "convert", "path": ..., "out": ..., "size": ...}``, ``{"do": "layers", "out": FOLDER}``,
``{"do": "tflite", "out": FILE}`` and ``{"do": "answer"}`` with a batch.
"""

from __future__ import annotations

import ctypes
import gc
import sys
from pathlib import Path
from typing import IO, Any

from ..facts import Floats
from ..network_layers import write_layers
from .loaded_model import LoadedModel
from .request_loop import serve_own_stdout, serve_requests

__all__ = ["serve"]


def load(kind: str, path: Path, size: int | None) -> LoadedModel:
    """Load a model with the framework of its format.

    Args:
        kind: a format of ``file_kinds.Kind``.
        path: the file or folder.
        size: the side of the input in pixels, for a model that leaves it open.
    """
    if kind in ("keras", "tf_keras"):
        from .keras_models import load_keras

        return load_keras(path, kind, size)
    if kind == "savedmodel":
        from .saved_models import load_saved_model

        return load_saved_model(path, size)
    from .tflite_models import load_tflite

    return load_tflite(path)


class _Served:
    """One model and the requests to it."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._model: LoadedModel | None = None

    def handle(self, request: dict[str, Any], batch: Floats | None) -> tuple[dict[str, Any], Floats | None]:
        """Answer a request."""
        if request["do"] == "convert":
            self._model = None
            loaded = self._model = load(self._kind, Path(request["path"]), request["size"])
            reply = loaded.convert(Path(request["out"]))
            _release_memory()
            return reply, None
        model = self._model
        if request["do"] == "layers" and model is not None and model.layers is not None:
            write_layers(Path(request["out"]), model.layers())
        elif request["do"] == "tflite" and model is not None and model.tflite is not None:
            Path(request["out"]).write_bytes(model.tflite())
            _release_memory()
        elif model is not None and batch is not None:
            return {}, model.answer(batch)
        return {}, None


def serve(kind: str, requests: IO[bytes], replies: IO[bytes]) -> None:
    """Serve requests until the stream ends. Errors are replies."""
    serve_requests(_Served(kind).handle, requests, replies, kind)


def _release_memory() -> None:
    """Give back the memory that a conversion no longer needs.

    Its graphs refer to themselves, so they wait for the garbage collector, and glibc keeps what is freed.
    """
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):  # another C library
        return


if __name__ == "__main__":
    serve_own_stdout(lambda requests, replies: serve(sys.argv[1], requests, replies))
