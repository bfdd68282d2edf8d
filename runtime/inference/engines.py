"""Inference engines by name. What was asked for and cannot be had is an error; nothing falls back."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from ..errors import BackendError, ModelError, UsageError
from .backend import Answer, Backend
from .installed_models import find_model

__all__ = [
    "BACKENDS",
    "Answer",
    "Backend",
    "Engine",
    "Format",
    "find_format",
    "installed_backends",
    "open_model",
    "open_reference",
    "readers_of",
]

Format = Literal["ONNX", "TFLite"]


@dataclass(frozen=True)
class Engine:
    """How to get at an engine: the class ``opener`` of our ``module``, which needs the package ``needs``.

    ``extra`` is what installs it, empty where the plain install has it.
    """

    name: str
    reads: Format
    needs: str
    module: str
    opener: str
    extra: str = ""

    @property
    def installed(self) -> bool:
        try:
            return find_spec(self.needs) is not None
        except ValueError:  # a module that is blocked in sys.modules
            return False

    def open(self, path: Path, threads: int, *, reference: bool = False) -> Backend:
        if not self.installed:
            raise BackendError(
                f"backend {self.name!r} needs {self.needs}, which is not installed",
                hint=f"pip install 'capsule-edge[{self.extra}]'"
                if self.extra
                else "install capsule-edge again",
            )
        content = _read(path)
        found = find_format(path, content)
        if found != self.reads:
            kind = "a TFLite file" if found == "TFLite" else "no TFLite file"
            raise BackendError(
                f"{path} is {kind}, the backend {self.name!r} reads {self.reads}",
                hint=f"use --backend {' or '.join(readers_of(found))}, or the {self.reads} file of the same export",
            )
        opener = getattr(import_module(self.module, __package__), self.opener)
        backend: Backend = (
            opener(path, content, threads, reference=True) if reference else opener(path, content, threads)
        )
        return backend


BACKENDS = {
    engine.name: engine
    for engine in (
        Engine("onnxruntime", "ONNX", "onnxruntime", ".onnxruntime_backend", "OnnxRuntime"),
        Engine("openvino", "ONNX", "openvino", ".openvino_backend", "OpenVino", "openvino"),
        Engine("litert", "TFLite", "ai_edge_litert", ".litert_backend", "LiteRt", "litert"),
    )
}


def installed_backends() -> tuple[str, ...]:
    """Names of the backends whose engine is installed, in the order of ``BACKENDS``."""
    return tuple(name for name, engine in BACKENDS.items() if engine.installed)


def open_model(path: str | Path, *, backend: str = "onnxruntime", threads: int = 0) -> Backend:
    """Open a model file, or one that comes with the package by name. ``threads`` 0 leaves the number to the engine.

    Raises ``ModelError`` for a file that is none or breaks the contract, ``BackendError`` for an engine that is not
    known, not installed, or reads another format than the file has.
    """
    if backend not in BACKENDS:
        raise BackendError(f"backend {backend!r} is not known, allowed is one of {', '.join(BACKENDS)}")
    if threads < 0:
        raise UsageError(f"threads is {threads}, allowed is 0 (the engine's own choice) or more")
    return BACKENDS[backend].open(find_model(path), threads)


def open_reference(path: Path) -> Backend:
    """The file opened so that each layer is computed by itself and plainly, to hold faster ways to; slow.

    ONNX: onnxruntime without optimisation, where quantised layers are computed in float. TFLite: LiteRT's
    reference kernels. Raises as ``open_model`` does.
    """
    if not path.is_file():
        raise ModelError(f"no model file at {path}")
    return BACKENDS["onnxruntime" if find_format(path) == "ONNX" else "litert"].open(path, 1, reference=True)


def find_format(path: Path, content: bytes | None = None) -> Format:
    """TFLite by its mark, or its name where the mark is gone; all else is taken for ONNX, which has no mark."""
    head = _read(path)[:8] if content is None else content[:8]
    return "TFLite" if head[4:] == b"TFL3" or path.suffix.lower() == ".tflite" else "ONNX"


def readers_of(format: Format) -> tuple[str, ...]:
    """Names of the backends that read files of that format."""
    return tuple(name for name, engine in BACKENDS.items() if engine.reads == format)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}") from None
