"""onnxruntime on the CPU: the backend of the plain install."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import BackendError, ModelError
from .backend import OUTPUTS, Answer, Tensor, check_answer, check_contract, check_frames, parse_spec
from .spec import METADATA_KEY

__all__ = ["OnnxRuntime"]


class OnnxRuntime:
    """An ONNX file in an onnxruntime session; ``threads`` within an operator, 0 is onnxruntime's choice.

    ``reference`` switches all optimisation off: quantised layers are then computed in float, one by one.
    """

    name = "onnxruntime"

    def __init__(self, path: Path, content: bytes, threads: int, *, reference: bool = False) -> None:
        import onnxruntime as ort

        self.path = path
        self.sha256 = hashlib.sha256(content).hexdigest()
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = threads
        # Threads that spin between batches take the cores that decode.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # A plan of the memory for each size of batch saves no time here, and takes a tenth more.
        options.enable_mem_pattern = False
        if reference:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        try:
            session: Any = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises its own unrelated types
            reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
            raise ModelError(
                f"{path} is no model that onnxruntime {ort.__version__} can read: {reason}"
            ) from None
        self.spec = parse_spec(path, session.get_modelmeta().custom_metadata_map.get(METADATA_KEY))
        inputs, outputs = (
            {node.name: _describe(node) for node in nodes}
            for nodes in (session.get_inputs(), session.get_outputs())
        )
        self._input = check_contract(path, self.spec, inputs, outputs)
        self._session: Any = session

    def run(self, frames: npt.NDArray[np.uint8]) -> Answer:
        check_frames(frames, self.spec.input.size)
        # Taken once: another thread may close the backend meanwhile.
        session = self._session
        if session is None:
            raise BackendError(f"{self.path.name} is closed", hint="open it again")
        return check_answer(self.path, Answer(*session.run(list(OUTPUTS), {self._input: frames})))

    def close(self) -> None:
        self._session = None


def _describe(node: Any) -> Tensor:
    """onnxruntime's own words for types are ``tensor(float)`` and the like; free lengths are names or None."""
    kind = {"tensor(float)": "float32", "tensor(uint8)": "uint8"}.get(node.type, node.type)
    return Tensor(kind, tuple(side if isinstance(side, int) else None for side in node.shape))
