"""Define the ``Backend`` protocol, its ``Answer``, and the checks that all backends share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ..errors import BackendError, CapsuleEdgeError, InputError, ModelError
from .model_limits import check_size
from .spec import METADATA_KEY, ModelSpec

__all__ = [
    "OUTPUTS",
    "Answer",
    "Backend",
    "Tensor",
    "check_answer",
    "check_contract",
    "check_frames",
    "engine_errors",
    "make_answer",
    "outputs_of",
    "parse_spec",
]

Floats = npt.NDArray[np.float32]
OUTPUTS = ("probabilities", "logits", "features")


@dataclass(frozen=True)
class Answer:
    """The model's outputs for a batch of N frames, all float32.

    Attributes:
        probabilities: (N, labels), 0..1, calibrated.
        logits: (N, labels), not calibrated.
        features: (N, h, w, labels), the classifier applied at each position before pooling. Their mean over h and w
            is the logits less the classifier's bias; ``docs/quantization.md`` states how closely in INT8. (N, 0, 0,
            labels) from a model without activation maps (``ModelSpec.has_maps``).
    """

    probabilities: Floats
    logits: Floats
    features: Floats


class Backend(Protocol):
    """An opened model.

    Several threads may call ``run`` at the same time; the calls run in parallel.

    Attributes:
        name: name of the inference engine, a key of ``BACKENDS``.
        spec: the ``ModelSpec`` in the file.
        sha256: SHA-256 of the model file, 64 hexadecimal digits.
        path: path of the model file.
    """

    name: str
    spec: ModelSpec
    sha256: str
    path: Path

    def run(self, frames: npt.NDArray[np.uint8]) -> Answer:
        """Return the model's outputs for a batch of preprocessed frames.

        Args:
            frames: uint8 RGB (N, size, size, 3), N >= 1, where ``size`` is ``spec.input.size``. They are not changed.

        Returns:
            New arrays; later calls do not overwrite them.

        Raises:
            InputError: the frames have another type or shape.
            BackendError: the model is closed, or the engine fails.
            ModelError: an output is NaN or infinite.
        """
        ...

    def close(self) -> None:
        """Release the model's memory. A second call does nothing."""
        ...


@dataclass(frozen=True)
class Tensor:
    """An input or output of a model, as the engine describes it. None in ``shape`` is a dynamic dimension."""

    dtype: str
    shape: tuple[int | None, ...]

    def __str__(self) -> str:
        return f"{self.dtype} ({', '.join('any' if side is None else str(side) for side in self.shape)})"


def parse_spec(path: Path, document: str | None) -> ModelSpec:
    """Return the ModelSpec of a model file.

    Args:
        path: path of the model file, for messages.
        document: the JSON in the file's metadata; None if the file has none.

    Raises:
        ModelError: there is no JSON, or it is not a ModelSpec.
    """
    if document is None:
        raise ModelError(
            f"{path} carries no {METADATA_KEY} metadata, so its labels and preprocessing are unknown",
            hint="export the model with 'capsule-edge export'",
        )
    return ModelSpec.from_json(document)


def check_contract(
    path: Path, spec: ModelSpec, inputs: Mapping[str, Tensor], outputs: Mapping[str, Tensor]
) -> str:
    """Check that a model's inputs and outputs fit its ModelSpec, and return the name of the input.

    Args:
        path: path of the model file, for messages.
        spec: the ModelSpec in the file.
        inputs: the model's inputs by name.
        outputs: the model's outputs by name.

    Raises:
        ModelError: the input is not one uint8 tensor (any, size, size, 3), or an output is missing, is not float32 or
            has another number of dimensions or labels.
    """
    size, labels = spec.input.size, len(spec.labels)
    name, given = next(iter(inputs.items()), ("", Tensor("none", ())))
    if len(inputs) != 1 or given.dtype != "uint8" or given.shape[1:] != (size, size, 3):
        found = ", ".join(f"{name} {tensor}" for name, tensor in inputs.items())
        raise ModelError(
            f"{path}: inputs are [{found}], its ModelSpec needs one uint8 (N, {size}, {size}, 3)"
        )
    if given.shape[0] is not None:
        raise ModelError(f"{path}: the batch size is fixed at {given.shape[0]}, a dynamic one is needed")
    if not spec.has_maps and "features" in outputs:
        raise ModelError(f"{path}: the output 'features' is there, but its ModelSpec says that there is none")
    for wanted in outputs_of(spec):
        rank = 4 if wanted == "features" else 2
        output = outputs.get(wanted)
        fits = output is not None and output.dtype == "float32" and len(output.shape) == rank
        if output is None or not fits or output.shape[-1] != labels:
            raise ModelError(
                f"{path}: output {wanted!r} is {output or 'absent'},"
                f" needed is float32 of rank {rank} ending in {labels}"
            )
        check_size(
            path, f"output {wanted!r} {output}", [side for side in output.shape if side is not None], 4
        )
    return name


def check_frames(frames: npt.NDArray[np.uint8], size: int) -> None:
    """Raise ``InputError`` unless ``frames`` is uint8 (N, size, size, 3) with N >= 1."""
    fits = isinstance(frames, np.ndarray) and frames.dtype == np.uint8 and frames.shape[1:] == (size, size, 3)
    if not fits or not len(frames):
        found = f"{frames.dtype} {frames.shape}" if isinstance(frames, np.ndarray) else type(frames).__name__
        raise InputError(f"frames are {found}, the model needs uint8 (N, {size}, {size}, 3), N >= 1")


def outputs_of(spec: ModelSpec) -> tuple[str, ...]:
    """Return the names of the outputs that a model has."""
    return OUTPUTS if spec.has_maps else OUTPUTS[:-1]


def make_answer(path: Path, spec: ModelSpec, found: Mapping[str, Floats]) -> Answer:
    """Return the answer with the outputs of ``outputs_of``; raise ``ModelError`` if one is NaN or infinite."""
    features = found.get("features")
    if features is None:
        features = np.empty((len(found["logits"]), 0, 0, len(spec.labels)), np.float32)
    return check_answer(path, Answer(found["probabilities"], found["logits"], features))


def check_answer(path: Path, answer: Answer) -> Answer:
    """Return the answer; raise ``ModelError`` if an output is NaN or infinite."""
    for name in OUTPUTS:
        if not np.isfinite(getattr(answer, name)).all():
            raise ModelError(
                f"the model returned NaN or infinite {name} ({path})", hint="export the model again"
            )
    return answer


@contextmanager
def engine_errors(path: Path, engine: str, work: str) -> Iterator[None]:
    """Turn what an inference engine raises into an error of this program, with the reason on one line.

    Engines raise their own classes (onnxruntime's ``Fail``), ``RuntimeError``, ``MemoryError``, and
    ``UnicodeDecodeError`` for a damaged name.

    Args:
        path: path of the model file.
        engine: name and version of the engine.
        work: what the engine was to do with the file: "read" or "run".

    Raises:
        ModelError: the engine cannot read the file.
        BackendError: the engine read the file and cannot run it.
    """
    try:
        yield
    except CapsuleEdgeError:
        raise
    except Exception as error:  # the engines' exceptions have no common base class but this
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        # OpenVINO's first lines name places in its source; the others begin with the reason.
        reason = (lines or [type(error).__name__])[-1 if engine.startswith("OpenVINO") else 0][:200]
        message = f"{engine} cannot {work} {path}: {reason}"
        if work == "run":
            raise BackendError(
                message, hint="try another --backend, and check the file with 'capsule-edge doctor'"
            ) from None
        raise ModelError(
            message, hint="name a model file, or standard or small; if the file was copied, copy it again"
        ) from None
