"""Run ONNX files with OpenVINO on the CPU. The extra ``[openvino]`` installs it."""

from __future__ import annotations

import hashlib
import io
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from ..cores import count_cores
from ..errors import BackendError
from .backend import (
    Answer,
    Tensor,
    check_contract,
    check_frames,
    engine_errors,
    make_answer,
    outputs_of,
    parse_spec,
)
from .onnx_file import check_onnx
from .spec import METADATA_KEY

__all__ = ["OpenVino"]

_METADATA = ["framework", METADATA_KEY]


class OpenVino:
    """A ``Backend`` for ONNX files: one model compiled by OpenVINO, shared by all calling threads.

    Calls from several threads run in parallel on OpenVINO's streams. Each stream has ``threads`` threads, and there are
    as many streams as this process has cores for. The precision is pinned to float32: by default OpenVINO computes
    float layers in bfloat16 on CPUs that have it, and the answers would then depend on the CPU.

    Args:
        path: path of the file, for messages.
        content: the bytes of the file.
        threads: number of threads of each call; 0 gives all cores to one call at a time.
    """

    name = "openvino"

    def __init__(self, path: Path, content: bytes, threads: int) -> None:
        self.path = path
        self.sha256 = hashlib.sha256(content).hexdigest()
        check_onnx(path, content)
        with engine_errors(path, _name(), "read"):
            model = _core().read_model(io.BytesIO(content))
            document = model.get_rt_info(_METADATA).value if model.has_rt_info(_METADATA) else None
            inputs, outputs = (
                {port.get_any_name(): _describe(port) for port in ports}
                for ports in (model.inputs, model.outputs)
            )
        self.spec = parse_spec(path, document)
        self._input = check_contract(path, self.spec, inputs, outputs)
        with engine_errors(path, _name(), "read"):
            self._compiled: Any = _core().compile_model(model, "CPU", _compile_options(threads))
        self._idle: list[Any] = []
        self._lock = Lock()

    def run(self, frames: npt.NDArray[np.uint8]) -> Answer:
        """Return the model's outputs for a batch, see ``Backend.run``."""
        check_frames(frames, self.spec.input.size)
        request = self._take()
        try:
            with engine_errors(self.path, _name(), "run"):
                # Let OpenVINO share its arrays here, since the outputs are copied below.
                request.infer(
                    {self._input: np.ascontiguousarray(frames)}, share_inputs=True, share_outputs=True
                )
                # The next call of this request overwrites its outputs, so copy them.
                found = {name: np.array(request.get_tensor(name).data) for name in outputs_of(self.spec)}
        finally:
            with self._lock:
                if self._compiled is not None:
                    self._idle.append(request)
        return make_answer(self.path, self.spec, found)

    def close(self) -> None:
        """Release the model's memory, see ``Backend.close``."""
        with self._lock:
            self._compiled = None
            self._idle.clear()

    def _take(self) -> Any:
        """Return an inference request that no other thread is using; a request runs one call at a time."""
        with self._lock:
            if self._compiled is None:
                raise BackendError(f"{self.path.name} is closed", hint="open it again")
            return self._idle.pop() if self._idle else self._compiled.create_infer_request()


@cache
def _core() -> Any:
    """Return the one OpenVINO core of the process, which is never released.

    The core's CPU plugin sets the signal stack of the thread that creates it, and unmaps that stack when the core is
    released, in whichever thread that happens. The next ctrl-C would then end the program with a segmentation fault.
    """
    import openvino

    return openvino.Core()


def _name() -> str:
    import openvino

    return f"OpenVINO {openvino.__version__}"


def _compile_options(threads: int) -> dict[str, Any]:
    options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": 1}
    if threads:
        streams = max(1, count_cores() // threads)
        options |= {"NUM_STREAMS": streams, "INFERENCE_NUM_THREADS": streams * threads}
    return options


def _describe(port: Any) -> Tensor:
    shape = tuple(None if side.is_dynamic else int(side.get_length()) for side in port.partial_shape)
    return Tensor(np.dtype(port.element_type.to_dtype()).name, shape)
