"""Run ONNX files with onnxruntime on the CPU, the backend of the plain install."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import BackendError
from .backend import (
    Answer,
    Tensor,
    check_answer,
    check_contract,
    check_frames,
    engine_errors,
    make_answer,
    outputs_of,
    parse_spec,
)
from .onnx_file import check_onnx
from .spec import METADATA_KEY

__all__ = ["OnnxRuntime"]


class OnnxRuntime:
    """A ``Backend`` for ONNX files: one onnxruntime session, shared by all calling threads.

    Args:
        path: path of the file, for messages.
        content: the bytes of the file.
        threads: number of threads within one operator; 0 lets onnxruntime choose.
        reference: switch all optimisation off. Quantised layers are then computed in float, one by one.
    """

    name = "onnxruntime"

    def __init__(self, path: Path, content: bytes, threads: int, *, reference: bool = False) -> None:
        self.path = path
        self.sha256 = hashlib.sha256(content).hexdigest()
        check_onnx(path, content)
        with engine_errors(path, _name(), "read"):
            session: Any = _open_session(content, threads, reference)
            document = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
            inputs, outputs = (
                {node.name: _describe(node) for node in nodes}
                for nodes in (session.get_inputs(), session.get_outputs())
            )
        self.spec = parse_spec(path, document)
        if self.spec.precision == "int8" and not self.spec.saturation_safe and not reference:
            with engine_errors(path, _name(), "read"):
                session = _open_session(content, threads, reference, wide_sums=True)
        self._input = check_contract(path, self.spec, inputs, outputs)
        self._outputs = list(outputs_of(self.spec))
        self._session: Any = session

    def run(self, frames: npt.NDArray[np.uint8]) -> Answer:
        """Return the model's outputs for a batch, see ``Backend.run``."""
        check_frames(frames, self.spec.input.size)
        # Read the attribute once: another thread may close the backend meanwhile.
        session = self._session
        if session is None:
            raise BackendError(f"{self.path.name} is closed", hint="open it again")
        with engine_errors(self.path, _name(), "run"):
            found = session.run(self._outputs, {self._input: frames})
        if self.spec.has_maps:
            # Without the dictionary below: a small network answers thousands of frames a second.
            return check_answer(self.path, Answer(*found))
        return make_answer(self.path, self.spec, dict(zip(self._outputs, found, strict=True)))

    def close(self) -> None:
        """Release the model's memory, see ``Backend.close``."""
        self._session = None


def _name() -> str:
    import onnxruntime as ort

    return f"onnxruntime {ort.__version__}"


def _open_session(content: bytes, threads: int, reference: bool, *, wide_sums: bool = False) -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    # Fatal only: an error is raised as well, and the command line prints it on one line.
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    # Threads that spin between batches would take processor time from the decoders.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # A memory plan for each batch size saves no time here, and takes a tenth more memory.
    options.enable_mem_pattern = False
    if wide_sums:
        # On x86 without VNNI, 8-bit products are then added in 32 bits and cannot saturate: the answers of every other
        # processor, in 1.3 times the time. Elsewhere the option changes nothing.
        options.add_session_config_entry("session.x64quantprecision", "1")
    if reference:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    # The fallback would print to stdout and try the same again.
    return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"], enable_fallback=0)


def _describe(node: Any) -> Tensor:
    """Translate onnxruntime's type (``tensor(float)``) and shape; it gives dynamic dimensions a name or None."""
    kind = {"tensor(float)": "float32", "tensor(uint8)": "uint8"}.get(node.type, node.type)
    return Tensor(kind, tuple(side if isinstance(side, int) else None for side in node.shape))
