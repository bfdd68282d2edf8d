"""What every backend keeps: the protocol, the answer, and the checks that are the same for all engines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ..errors import InputError, ModelError
from .spec import METADATA_KEY, ModelSpec

__all__ = [
    "OUTPUTS",
    "Answer",
    "Backend",
    "Tensor",
    "check_answer",
    "check_contract",
    "check_frames",
    "parse_spec",
]

Floats = npt.NDArray[np.float32]
OUTPUTS = ("probabilities", "logits", "features")


@dataclass(frozen=True)
class Answer:
    """The model's outputs for a batch, float32: probabilities and logits (N, labels), features (N, h, w, labels)."""

    probabilities: Floats
    logits: Floats
    features: Floats


class Backend(Protocol):
    """An opened model. ``run`` may be called from several threads, and these calls run at once."""

    name: str
    spec: ModelSpec
    sha256: str
    path: Path

    def run(self, frames: npt.NDArray[np.uint8]) -> Answer:
        """Answers for preprocessed frames, uint8 RGB (N, size, size, 3), N >= 1; the arrays are the caller's.

        Raises ``InputError`` for other arrays, ``BackendError`` once closed, ``ModelError`` for answers that are
        no numbers.
        """
        ...

    def close(self) -> None:
        """Give the model's memory back. A second call does nothing."""
        ...


@dataclass(frozen=True)
class Tensor:
    """An input or output of a model file as its engine describes it; ``None`` in a shape is a free length."""

    dtype: str
    shape: tuple[int | None, ...]

    def __str__(self) -> str:
        return f"{self.dtype} ({', '.join('any' if side is None else str(side) for side in self.shape)})"


def parse_spec(path: Path, document: str | None) -> ModelSpec:
    """The ModelSpec from the text in a file's metadata, None where there is none; ``ModelError`` as that."""
    if document is None:
        raise ModelError(
            f"{path} carries no {METADATA_KEY} metadata, so its labels and preprocessing are unknown",
            hint="export it with 'capsule-edge export'",
        )
    return ModelSpec.from_json(document)


def check_contract(
    path: Path, spec: ModelSpec, inputs: Mapping[str, Tensor], outputs: Mapping[str, Tensor]
) -> str:
    """The input's name. Raises ``ModelError`` for a file whose ModelSpec does not fit its inputs and outputs."""
    size, labels = spec.input.size, len(spec.labels)
    name, given = next(iter(inputs.items()), ("", Tensor("none", ())))
    if len(inputs) != 1 or given.dtype != "uint8" or given.shape[1:] != (size, size, 3):
        found = ", ".join(f"{name} {tensor}" for name, tensor in inputs.items())
        raise ModelError(
            f"{path}: inputs are [{found}], its ModelSpec needs one uint8 (N, {size}, {size}, 3)"
        )
    if given.shape[0] is not None:
        raise ModelError(f"{path}: the batch is fixed at {given.shape[0]}, a dynamic one is needed")
    for wanted in OUTPUTS:
        rank = 4 if wanted == "features" else 2
        output = outputs.get(wanted)
        fits = output is not None and output.dtype == "float32" and len(output.shape) == rank
        if output is None or not fits or output.shape[-1] != labels:
            raise ModelError(
                f"{path}: output {wanted!r} is {output or 'absent'},"
                f" needed is float32 of rank {rank} ending in {labels}"
            )
    return name


def check_frames(frames: npt.NDArray[np.uint8], size: int) -> None:
    """Raises ``InputError`` for anything but uint8 (N, size, size, 3) with N >= 1."""
    fits = isinstance(frames, np.ndarray) and frames.dtype == np.uint8 and frames.shape[1:] == (size, size, 3)
    if not fits or not len(frames):
        found = f"{frames.dtype} {frames.shape}" if isinstance(frames, np.ndarray) else type(frames).__name__
        raise InputError(f"frames are {found}, the model needs uint8 (N, {size}, {size}, 3), N >= 1")


def check_answer(path: Path, answer: Answer) -> Answer:
    """The answer, unless it holds probabilities that are no numbers (``ModelError``)."""
    if not np.isfinite(answer.probabilities).all():
        raise ModelError(f"{path} answers with probabilities that are no numbers", hint="export it again")
    return answer
