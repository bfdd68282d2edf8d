"""Inference engines behind one protocol. What was asked for and cannot be had is an error; nothing falls back."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from .errors import BackendError, InputError, ModelError, UsageError
from .spec import METADATA_KEY, ModelSpec

__all__ = ["BACKENDS", "Answer", "Backend", "open_model"]

Floats = npt.NDArray[np.float32]
OUTPUTS = ("probabilities", "logits", "features")


@dataclass(frozen=True)
class Answer:
    """The model's outputs for a batch, float32: probabilities and logits (N, labels), features (N, h, w, labels)."""

    probabilities: Floats
    logits: Floats
    features: Floats


class Backend(Protocol):
    """An opened model. ``run`` is safe to call from several threads."""

    name: str
    spec: ModelSpec
    sha256: str
    path: Path

    def run(self, frames: npt.NDArray[np.uint8]) -> Answer:
        """Answers for preprocessed frames, uint8 RGB (N, size, size, 3)."""
        ...

    def close(self) -> None: ...


def open_model(path: str | Path, *, backend: str = "onnxruntime", threads: int = 0) -> Backend:
    """Open a model file. ``threads`` 0 leaves the number to the engine.

    Raises ``ModelError`` for a file that is none or breaks the contract, ``BackendError`` for an engine that is not
    known or not installed.
    """
    if backend not in BACKENDS:
        raise BackendError(f"backend {backend!r} is not known, allowed is one of {', '.join(BACKENDS)}")
    if threads < 0:
        raise UsageError(f"threads is {threads}, allowed is 0 (the engine's own choice) or more")
    path = Path(path)
    if not path.is_file():
        raise ModelError(f"no model file at {path}")
    return BACKENDS[backend](path, threads)


class OnnxRuntime:
    """onnxruntime on the CPU."""

    name = "onnxruntime"

    def __init__(self, path: Path, threads: int) -> None:
        import onnxruntime as ort

        self.path = path
        data = path.read_bytes()
        self.sha256 = hashlib.sha256(data).hexdigest()
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = threads
        # Threads that spin between batches take the cores that decode.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session: Any = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises its own unrelated types
            reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
            raise ModelError(
                f"{path} is no model that onnxruntime {ort.__version__} can read: {reason}"
            ) from None
        metadata = self._session.get_modelmeta().custom_metadata_map
        if METADATA_KEY not in metadata:
            raise ModelError(
                f"{path} carries no capsule_edge metadata, so its labels and preprocessing are unknown",
                hint="export it with 'capsule-edge export'",
            )
        self.spec = ModelSpec.from_json(metadata[METADATA_KEY])
        self._check()

    def _check(self) -> None:
        """Refuse a file whose ModelSpec does not fit its inputs and outputs."""
        size, labels = self.spec.input.size, len(self.spec.labels)
        inputs = self._session.get_inputs()
        if len(inputs) != 1 or inputs[0].type != "tensor(uint8)" or inputs[0].shape[1:] != [size, size, 3]:
            found = [(i.name, i.type, i.shape) for i in inputs]
            raise ModelError(
                f"{self.path}: inputs are {found}, its ModelSpec needs one uint8 (N, {size}, {size}, 3)"
            )
        if isinstance(inputs[0].shape[0], int):
            raise ModelError(
                f"{self.path}: the batch is fixed at {inputs[0].shape[0]}, a dynamic one is needed"
            )
        outputs = {o.name: o for o in self._session.get_outputs()}
        for name in OUTPUTS:
            rank = 4 if name == "features" else 2
            output = outputs.get(name)
            if (
                output is None
                or output.type != "tensor(float)"
                or len(output.shape) != rank
                or output.shape[-1] != labels
            ):
                shape = "absent" if output is None else f"{output.type} {output.shape}"
                raise ModelError(
                    f"{self.path}: output {name!r} is {shape}, needed is float32 of rank {rank} ending in {labels}"
                )
        self._input = inputs[0].name

    def run(self, frames: npt.NDArray[np.uint8]) -> Answer:
        size = self.spec.input.size
        if frames.dtype != np.uint8 or frames.shape[1:] != (size, size, 3):
            raise InputError(
                f"frames are {frames.dtype} {frames.shape}, the model needs uint8 (N, {size}, {size}, 3)"
            )
        if self._session is None:
            raise BackendError(f"{self.path.name} is closed", hint="open it again")
        answer = Answer(*self._session.run(list(OUTPUTS), {self._input: frames}))
        if not np.isfinite(answer.probabilities).all():
            raise ModelError(
                f"{self.path} answers with probabilities that are no numbers", hint="export it again"
            )
        return answer

    def close(self) -> None:
        self._session = None


BACKENDS: dict[str, Callable[[Path, int], Backend]] = {"onnxruntime": OnnxRuntime}
