"""Golden frames: rendered phantom frames with known answers, replayed to check an engine on this machine.

The answers of a model file are in ``golden.json`` beside it, by the file's SHA-256.
``python -m capsule_edge.export.tools.golden`` writes them. If the file has no stored answers, or the frames render
differently here, they are computed: ONNX without any optimisation, where quantised layers run in float and nothing can
saturate; TFLite with LiteRT's reference kernels.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ..inference import (
    GOLDEN_FILE,
    GOLDEN_SCHEMA,
    Backend,
    InputSpec,
    ModelSpec,
    most_probable,
    open_reference,
    stored_answers,
)
from ..phantom import DEMO_SEED, Phantom
from ..preprocessing import find_field_of_view, preprocess

__all__ = [
    "GOLDEN_FILE",
    "SCHEMA",
    "Golden",
    "Replay",
    "entry_of",
    "find_step",
    "golden_frames",
    "hash_frames",
    "know_answers",
    "replay",
    "work_out",
]

SCHEMA = GOLDEN_SCHEMA
# Frames of the demo's phantom: five without a lesion, and one or two of each of its four lesions.
_INDICES = (10, 60, 90, 100, 150, 230, 240, 300, 340, 400, 480, 590)
# Largest FP32 difference, relative to the largest logit. Adding about 1e3 float32 products in another order, in about
# fifty layers, gave 7e-5. Half precision gives 5e-3.
_FLOAT_LIMIT = 1e-3
# Largest INT8 difference: root mean square over the logits of a frame, in quantisation steps. Engines agree nearly to
# the bit in convolutions. When they add two maps, some values round differently, and later layers amplify that: 1.7
# steps on a trained model. Saturation gives 14 and more.
_STEPS = 6.0


@dataclass(frozen=True)
class Golden:
    """The right logits of the golden frames.

    Attributes:
        logits: float32 (frames, labels).
        source: whether they were stored in ``golden.json`` or computed here.
    """

    logits: npt.NDArray[np.float32]
    source: Literal["stored", "computed"]


@dataclass(frozen=True)
class Replay:
    """An engine's answers to the golden frames, compared with the right ones.

    Attributes:
        correct: whether ``off`` is at most ``limit`` and the probabilities belong to the logits.
        off: FP32: the largest difference of a logit. INT8: the root mean square over the labels of the worst frame.
        limit: the largest ``off`` of a correct engine.
        max_abs_dp: the largest difference of a probability.
        agreement: share of frames with the same label, 0..1.
        source: where the right answers come from, as in ``Golden``.
    """

    correct: bool
    off: float
    limit: float
    max_abs_dp: float
    agreement: float
    source: Literal["stored", "computed"]


def golden_frames(spec: InputSpec) -> npt.NDArray[np.uint8]:
    """Return the golden frames as model input, uint8 RGB (frames, size, size, 3).

    After the phantom's frames come three that make the sums large: white, random black and white pixels, and noise.
    """
    phantom = Phantom(DEMO_SEED)
    pictures = [phantom.render(index) for index in _INDICES]
    box = find_field_of_view(pictures)
    shape = (spec.size, spec.size, 3)
    random = np.random.default_rng(0)
    strain = [
        np.full(shape, 255, np.uint8),
        random.integers(0, 2, shape, np.uint8) * np.uint8(255),
        random.integers(0, 256, shape, np.uint8),
    ]
    return np.stack([*(preprocess(picture, spec, box) for picture in pictures), *strain])


def know_answers(path: Path, sha256: str, frames: npt.NDArray[np.uint8]) -> Golden:
    """Return the right answers of a model file: the stored ones, or computed here if none fit.

    Args:
        path: the model file; ``golden.json`` is looked for beside it.
        sha256: SHA-256 of the model file.
        frames: uint8 RGB (frames, size, size, 3), from ``golden_frames``.

    Raises:
        ModelError: ``golden.json`` is damaged.
    """
    stored = stored_answers(path.with_name(GOLDEN_FILE)).get(sha256)
    if stored is not None and stored["frames_sha256"] == hash_frames(frames):
        return Golden(np.array(stored["logits"], np.float32), "stored")
    return Golden(work_out(path, frames), "computed")


def work_out(path: Path, frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Return the logits of the reference engine, which optimises nothing: float32 (frames, labels)."""
    model = open_reference(path)
    logits = model.run(frames).logits
    model.close()
    return logits


def replay(model: Backend, frames: npt.NDArray[np.uint8], golden: Golden) -> Replay:
    """Compare an engine's answers with the right ones, frame by frame.

    Args:
        model: the opened engine.
        frames: uint8 RGB (frames, size, size, 3).
        golden: the right answers to these frames.
    """
    answer = model.run(frames)
    right, found = golden.logits.astype(np.float64), answer.logits.astype(np.float64)
    wanted = _softmax(right / model.spec.temperature)
    off = np.abs(found - right)
    if model.spec.precision == "int8":
        measured, limit = float(np.sqrt(np.mean(off**2, axis=1)).max()), _STEPS * find_step(golden.logits)
    else:
        measured, limit = float(off.max()), _FLOAT_LIMIT * max(1.0, float(np.abs(right).max()))
    # The probabilities must be the softmax of the engine's own logits, up to float32 rounding.
    softmax_off = np.abs(answer.probabilities - _softmax(found / model.spec.temperature)).max()
    return Replay(
        correct=bool(measured <= limit and softmax_off <= 1e-5),
        off=measured,
        limit=limit,
        max_abs_dp=float(np.abs(answer.probabilities - wanted).max()),
        agreement=float(np.mean(most_probable(found) == most_probable(right))),
        source=golden.source,
    )


def find_step(logits: npt.NDArray[np.float32]) -> float:
    """Return the quantisation step of INT8 logits: their smallest difference, since all are multiples of the step."""
    differences = np.diff(np.unique(logits))
    differences = differences[differences > 1e-4]
    return float(differences.min()) if len(differences) else 0.0


def hash_frames(frames: npt.NDArray[np.uint8]) -> str:
    """Return the SHA-256 of the pixels."""
    return hashlib.sha256(np.ascontiguousarray(frames).tobytes()).hexdigest()


def entry_of(spec: ModelSpec, file: str, frames: npt.NDArray[np.uint8], logits: Any) -> dict[str, Any]:
    """Return a model's entry of ``golden.json``. Its 5 decimals are far finer than any limit."""
    rows = [[round(float(value), 5) for value in row] for row in logits]
    return {"file": file, "labels": list(spec.keys), "frames_sha256": hash_frames(frames), "logits": rows}


def _softmax(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))
