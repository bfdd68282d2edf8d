"""Open a model file with an inference engine chosen by name.

If the chosen engine is not installed or does not read the file, that is an error: no other engine takes its place.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from ..cores import bounded_threads
from ..errors import BackendError, ModelError, UsageError
from .backend import Answer, Backend
from .installed_models import find_model
from .model_limits import MAX_TENSOR_BYTES
from .references import check_hash, check_references

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
    """An inference engine, imported when it first opens a model.

    Attributes:
        name: the name by which the user chooses the engine.
        reads: the format of its model files.
        needs: the Python package that must be installed.
        module: the module of ``runtime.inference`` that uses the package, such as ``.litert_backend``.
        opener: the ``Backend`` class in ``module``.
        extra: the extra of capsule-edge that installs the package; empty if the plain install has it.
    """

    name: str
    reads: Format
    needs: str
    module: str
    opener: str
    extra: str = ""

    @property
    def installed(self) -> bool:
        """True if the engine's package can be imported; it is not imported to find out."""
        try:
            return find_spec(self.needs) is not None
        except ValueError:  # sys.modules holds None for the package, which blocks its import
            return False

    def open(self, path: Path, threads: int, *, reference: bool = False, checked: bool = False) -> Backend:
        """Open a model file; arguments and errors as in ``open_model``.

        Args:
            path: path of the model file.
            threads: number of threads of one call of ``run``; 0 lets the engine choose, within the CPU quota.
            reference: open as ``open_reference`` does; not with OpenVINO.
            checked: compare the file with what lies beside it (``references``).
        """
        if not self.installed:
            raise BackendError(
                f"backend {self.name!r} needs {self.needs}, which is not installed",
                hint=f"pip install 'capsule-edge[{self.extra}]'"
                if self.extra
                else "install capsule-edge again",
            )
        threads = threads or bounded_threads()
        content = _read(path)
        found = find_format(path, content)
        if found != self.reads:
            kind = "a TFLite file" if found == "TFLite" else "not a TFLite file"
            raise BackendError(
                f"{path} is {kind}, and the backend {self.name!r} reads {self.reads}",
                hint=f"use --backend {' or '.join(readers_of(found))}, or the {self.reads} file of the same export",
            )
        if checked:
            check_hash(path, content)
        opener = getattr(import_module(self.module, __package__), self.opener)
        backend: Backend = (
            opener(path, content, threads, reference=True) if reference else opener(path, content, threads)
        )
        if checked:
            check_references(path, backend.sha256, backend.spec)
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
    """Return the names of the backends whose engine is installed, in the order of ``BACKENDS``."""
    return tuple(name for name, engine in BACKENDS.items() if engine.installed)


def open_model(path: str | Path, *, backend: str = "onnxruntime", threads: int = 0) -> Backend:
    """Open a model file with an inference engine.

    Args:
        path: a model file, or the name of an installed model (``INSTALLED``).
        backend: the name of the engine, a key of ``BACKENDS``.
        threads: number of threads of one call of ``run``; 0 lets the engine choose, within the CPU quota.

    Raises:
        ModelError: there is no such file, it is not a model, or its ModelSpec is missing or does not fit it; or
            ``SHA256SUMS``, ``golden.json`` or a certificate beside it is about another file.
        BackendError: the engine is unknown, not installed, or reads another format.
        UsageError: ``threads`` is negative.

    Example:
        backend = open_model("standard")
        answer = backend.run(frames)  # uint8 RGB (N, size, size, 3)
        backend.close()
    """
    if backend not in BACKENDS:
        raise BackendError(f"the backend {backend!r} is not known, allowed is one of {', '.join(BACKENDS)}")
    if threads < 0:
        raise UsageError(f"threads is {threads}, allowed is 0 (the engine's own choice) or more")
    return BACKENDS[backend].open(find_model(path), threads, checked=True)


def open_reference(path: Path) -> Backend:
    """Open a model file with an engine that computes each layer separately, without optimisation.

    It is slow, and serves as the reference for the results of faster engines. An ONNX file is opened by onnxruntime
    without optimisation, which computes quantised layers in float. A TFLite file is opened with LiteRT's reference
    kernels.

    Raises:
        ModelError, BackendError: as ``open_model``.
    """
    if not path.is_file():
        raise ModelError(f"there is no model file at {path}")
    return BACKENDS["onnxruntime" if find_format(path) == "ONNX" else "litert"].open(path, 1, reference=True)


def find_format(path: Path, content: bytes | None = None) -> Format:
    """Return the format of a model file.

    A file is TFLite if it has TFLite's identifier ("TFL3" at byte 4) or a name that ends in ``.tflite``. Every other
    file is taken for ONNX, which has no identifier.

    Args:
        path: path of the file; it is read only if ``content`` is None.
        content: the bytes of the file.

    Raises:
        ModelError: the file cannot be read.
    """
    head = _read(path)[:8] if content is None else content[:8]
    return "TFLite" if head[4:] == b"TFL3" or path.suffix.lower() == ".tflite" else "ONNX"


def readers_of(format: Format) -> tuple[str, ...]:
    """Return the names of the backends that read files of a format."""
    return tuple(name for name, engine in BACKENDS.items() if engine.reads == format)


def _read(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > MAX_TENSOR_BYTES:
            raise ModelError(
                f"{path} has {size:,} bytes, allowed are {MAX_TENSOR_BYTES:,}", hint="name a model file"
            )
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}") from None
