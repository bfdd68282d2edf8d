"""OpenVINO on the CPU, the extra ``[openvino]``: reads the ONNX files."""

from __future__ import annotations

import hashlib
import io
import os
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import BackendError, ModelError
from .backend import OUTPUTS, Answer, Tensor, check_answer, check_contract, check_frames, parse_spec
from .spec import METADATA_KEY

__all__ = ["OpenVino"]

_METADATA = ["framework", METADATA_KEY]


class OpenVino:
    """An ONNX file compiled by OpenVINO; ``threads`` of each call, 0 is all cores for one call at a time.

    Calls from several threads run at once, on streams of ``threads`` each, as many as the machine has cores for.
    Precision is pinned to float32: left alone, OpenVINO computes float layers in bfloat16 where the CPU has it,
    and answers then depend on the CPU.
    """

    name = "openvino"

    def __init__(self, path: Path, content: bytes, threads: int) -> None:
        import openvino

        self.path = path
        self.sha256 = hashlib.sha256(content).hexdigest()
        options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": 1}
        if threads:
            streams = max(1, (os.cpu_count() or 1) // threads)
            options |= {"NUM_STREAMS": streams, "INFERENCE_NUM_THREADS": streams * threads}
        try:
            core = _core()
            model = core.read_model(io.BytesIO(content))
        except RuntimeError as error:
            raise ModelError(
                f"{path} is no model that OpenVINO {openvino.__version__} can read: {_reason(error)}"
            ) from None
        document = model.get_rt_info(_METADATA).value if model.has_rt_info(_METADATA) else None
        self.spec = parse_spec(path, document)
        inputs, outputs = (
            {port.get_any_name(): _describe(port) for port in ports}
            for ports in (model.inputs, model.outputs)
        )
        self._input = check_contract(path, self.spec, inputs, outputs)
        try:
            self._compiled: Any = core.compile_model(model, "CPU", options)
        except RuntimeError as error:
            raise ModelError(f"{path} cannot be compiled by OpenVINO: {_reason(error)}") from None
        self._idle: list[Any] = []
        self._lock = Lock()

    def run(self, frames: npt.NDArray[np.uint8]) -> Answer:
        check_frames(frames, self.spec.input.size)
        request = self._take()
        try:
            # Shared, since they are copied below, once.
            request.infer({self._input: np.ascontiguousarray(frames)}, share_inputs=True, share_outputs=True)
            # A request's outputs are its own memory: its next call writes over them.
            found = {name: np.array(request.get_tensor(name).data) for name in OUTPUTS}
        finally:
            with self._lock:
                if self._compiled is not None:
                    self._idle.append(request)
        return check_answer(self.path, Answer(**found))

    def close(self) -> None:
        with self._lock:
            self._compiled = None
            self._idle.clear()

    def _take(self) -> Any:
        """A request that no other thread is using; one answers one call at a time."""
        with self._lock:
            if self._compiled is None:
                raise BackendError(f"{self.path.name} is closed", hint="open it again")
            return self._idle.pop() if self._idle else self._compiled.create_infer_request()


@cache
def _core() -> Any:
    """The one core of the process, which is never given back.

    Its CPU plugin sets the stack on which the opening thread handles signals, and unmaps it when it goes, in
    whichever thread that is: the next ctrl-C would then end the program with a segmentation fault.
    """
    import openvino

    return openvino.Core()


def _describe(port: Any) -> Tensor:
    shape = tuple(None if side.is_dynamic else int(side.get_length()) for side in port.partial_shape)
    return Tensor(np.dtype(port.element_type.to_dtype()).name, shape)


def _reason(error: RuntimeError) -> str:
    """The last line that says something; those before it are where in OpenVINO's source it happened."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:200] if lines else type(error).__name__
