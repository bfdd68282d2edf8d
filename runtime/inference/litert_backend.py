"""Run TFLite files with LiteRT (TFLite's successor) on the CPU. The extra ``[litert]`` installs it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import BackendError
from .backend import Answer, Tensor, check_contract, check_frames, engine_errors, make_answer, outputs_of
from .tflite_metadata import check_tflite, parse_tflite_spec

__all__ = ["LiteRt"]

_SIGNATURE = "serving_default"


class LiteRt:
    """A ``Backend`` for TFLite files: LiteRT interpreters with XNNPACK kernels.

    An interpreter runs one call at a time, so there are as many interpreters as parallel calls. Each call resizes its
    interpreter to the batch. This is faster than one frame at a time (``docs/log.md`` has the ratios) and gives the
    same answers.

    Args:
        path: path of the file, for messages.
        content: the bytes of the file.
        threads: number of threads of each interpreter; 0 lets it choose.
        reference: use LiteRT's reference kernels instead of XNNPACK's.
    """

    name = "litert"

    def __init__(self, path: Path, content: bytes, threads: int, *, reference: bool = False) -> None:
        self.path = path
        self.sha256 = hashlib.sha256(content).hexdigest()
        check_tflite(path, content)
        self.spec = parse_tflite_spec(path, content)
        self._content: bytes | None = content
        self._options: dict[str, Any] = {"num_threads": threads or None}
        if reference:
            self._options["experimental_op_resolver_type"] = _reference_kernels()
        self._lock = Lock()
        with engine_errors(path, "LiteRT", "read"):
            runner = self._interpreter(content)
            inputs, outputs = _describe(runner.get_input_details()), _describe(runner.get_output_details())
        self._input = check_contract(path, self.spec, inputs, outputs)
        self._idle = [runner]

    def run(self, frames: npt.NDArray[np.uint8]) -> Answer:
        """Return the model's outputs for a batch, see ``Backend.run``."""
        check_frames(frames, self.spec.input.size)
        with engine_errors(self.path, "LiteRT", "run"):
            runner = self._take()
            found = runner(**{self._input: frames})
        with self._lock:
            if self._content is not None:
                self._idle.append(runner)
        return make_answer(self.path, self.spec, {name: found[name] for name in outputs_of(self.spec)})

    def close(self) -> None:
        """Release the model's memory, see ``Backend.close``."""
        with self._lock:
            self._content = None
            self._idle.clear()

    def _take(self) -> Any:
        """Return the runner of an interpreter that no other thread is using."""
        with self._lock:
            content = self._content
            if content is None:
                raise BackendError(f"{self.path.name} is closed", hint="open it again")
            if self._idle:
                return self._idle.pop()
        return self._interpreter(content)

    def _interpreter(self, content: bytes) -> Any:
        from ai_edge_litert.interpreter import Interpreter

        interpreter = Interpreter(model_content=content, **self._options)
        return interpreter.get_signature_runner(_SIGNATURE)


def _reference_kernels() -> Any:
    from ai_edge_litert.interpreter import OpResolverType

    return OpResolverType.BUILTIN_REF


def _describe(details: Mapping[str, Mapping[str, Any]]) -> dict[str, Tensor]:
    return {
        name: Tensor(
            np.dtype(entry["dtype"]).name,
            tuple(None if side < 0 else int(side) for side in entry["shape_signature"]),
        )
        for name, entry in details.items()
    }
