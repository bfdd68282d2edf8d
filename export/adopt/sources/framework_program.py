"""The child of ``framework_process``: load a model, write it as ONNX, and answer batches with its own framework.

    python -m capsule_edge.export.adopt.sources.framework_program keras

Requests are ``{"do": "convert", "path": ..., "out": ..., "size": ...}`` and ``{"do": "answer"}`` with a batch.
"""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from pathlib import Path
from typing import IO, Any

from capsule_edge.runtime.errors import CapsuleEdgeError, ModelError, PackageError

from ..facts import Floats
from .framework_process import read_message, write_message
from .loaded_model import LoadedModel

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


def serve(kind: str, requests: IO[bytes], replies: IO[bytes]) -> None:
    """Serve requests until the stream ends. Errors are replies."""
    model: LoadedModel | None = None
    while message := read_message(requests):
        request, batch = message
        answer: Floats | None = None
        reply: dict[str, Any] = {}
        try:
            if request["do"] == "convert":
                model = load(kind, Path(request["path"]), request["size"])
                reply = model.convert(Path(request["out"]))
                _release_memory()
            elif model is not None and batch is not None:
                answer = model.answer(batch)
        except CapsuleEdgeError as error:
            reply = _error(error)
        except ModuleNotFoundError as error:
            hint = "pip install 'capsule-edge[train]'"
            reply = _error(PackageError(f"the Python package {error.name} is not installed", hint=hint))
        except Exception as error:  # frameworks raise exceptions without a common base class
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            path = request.get("path", "the model")
            reply = _error(ModelError(f"{path} cannot be used with its framework ({kind}): {reason}"))
        write_message(replies, reply, answer)


def _release_memory() -> None:
    """Give back the memory that a conversion no longer needs.

    Its graphs refer to themselves, so they wait for the garbage collector, and glibc keeps what is freed.
    """
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):  # another C library
        return


def _error(error: CapsuleEdgeError) -> dict[str, Any]:
    kind = type(error).__name__
    return {"error": {"kind": kind, "message": error.message, "hint": error.hint}}


if __name__ == "__main__":
    # Frameworks print on stdout as they like. Replies go to a copy of it that they do not know.
    with os.fdopen(os.dup(1), "wb") as own:
        os.dup2(2, 1)
        serve(sys.argv[1], sys.stdin.buffer, own)
