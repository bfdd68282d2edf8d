"""Golden frames: rendered phantom frames whose right answers are known, replayed to prove an engine on this machine.

The right answers of a model file lie in ``golden.json`` beside it, by the file's SHA-256; they are written by
``python -m capsule_edge.export.tools.golden``. For a file without them, or where the frames render differently, they
are worked out here: ONNX without any optimisation, where quantised layers are computed in float and nothing can
saturate, TFLite with LiteRT's reference kernels.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ..errors import ModelError
from ..inference import Backend, InputSpec, ModelSpec, most_probable, open_reference
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

GOLDEN_FILE = "golden.json"
SCHEMA = "capsule-edge/golden/1"
# Of the demo's phantom: five clean frames and one or two of each of its four lesions.
_INDICES = (10, 60, 90, 100, 150, 230, 240, 300, 340, 400, 480, 590)
# Sums of some 1e3 float32 products in another order, relative to the largest logit, some fifty layers deep: 7e-5 was
# seen. Half precision comes to 5e-3.
_FLOAT_LIMIT = 1e-3
# Root mean square of a frame, in steps of the logits. Engines agree nearly to the bit in convolutions; where they add
# two maps some values round apart, which later layers amplify: 1.7 steps on a trained model. Saturation comes to 14 and
# more.
_STEPS = 6.0


@dataclass(frozen=True)
class Golden:
    """The right logits of the golden frames, float32 (frames, labels), and how they are known."""

    logits: npt.NDArray[np.float32]
    source: Literal["stored", "computed"]


@dataclass(frozen=True)
class Replay:
    """What an engine made of the golden frames, against the right answers.

    ``off`` is what ``limit`` bounds: the largest difference of a logit in FP32, in INT8 the root mean square over
    the labels of the worst frame;
    ``max_abs_dp`` is the largest difference of a probability, ``agreement`` the share of frames of the same label.
    """

    correct: bool
    off: float
    limit: float
    max_abs_dp: float
    agreement: float
    source: Literal["stored", "computed"]


def golden_frames(spec: InputSpec) -> npt.NDArray[np.uint8]:
    """The frames as a model takes them, uint8 RGB (frames, size, size, 3).

    Behind the phantom's are three that strain the sums: white, black and white pixels at random, and noise.
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
    """The right answers of the model file at ``path``, stored or worked out.

    Raises ``ModelError`` for a ``golden.json`` that is damaged.
    """
    stored = _stored(path.with_name(GOLDEN_FILE)).get(sha256)
    if stored is not None and stored["frames_sha256"] == hash_frames(frames):
        return Golden(np.array(stored["logits"], np.float32), "stored")
    return Golden(work_out(path, frames), "computed")


def work_out(path: Path, frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """The logits without any optimisation, (frames, labels)."""
    model = open_reference(path)
    logits = model.run(frames).logits
    model.close()
    return logits


def replay(model: Backend, frames: npt.NDArray[np.uint8], golden: Golden) -> Replay:
    """Compare an engine's answers, frame by frame, with the right ones."""
    answer = model.run(frames)
    right, found = golden.logits.astype(np.float64), answer.logits.astype(np.float64)
    wanted = _softmax(right / model.spec.temperature)
    off = np.abs(found - right)
    if model.spec.precision == "int8":
        measured, limit = float(np.sqrt(np.mean(off**2, axis=1)).max()), _STEPS * find_step(golden.logits)
    else:
        measured, limit = float(off.max()), _FLOAT_LIMIT * max(1.0, float(np.abs(right).max()))
    # The probabilities belong to the engine's own logits, within float32's roundings.
    of_its_own = np.abs(answer.probabilities - _softmax(found / model.spec.temperature)).max()
    return Replay(
        correct=bool(measured <= limit and of_its_own <= 1e-5),
        off=measured,
        limit=limit,
        max_abs_dp=float(np.abs(answer.probabilities - wanted).max()),
        agreement=float(np.mean(most_probable(found) == most_probable(right))),
        source=golden.source,
    )


def find_step(logits: npt.NDArray[np.float32]) -> float:
    """The scale of INT8 logits: the smallest difference of two, since all are its multiples."""
    differences = np.diff(np.unique(logits))
    differences = differences[differences > 1e-4]
    return float(differences.min()) if len(differences) else 0.0


def hash_frames(frames: npt.NDArray[np.uint8]) -> str:
    return hashlib.sha256(np.ascontiguousarray(frames).tobytes()).hexdigest()


def entry_of(spec: ModelSpec, file: str, frames: npt.NDArray[np.uint8], logits: Any) -> dict[str, Any]:
    """What ``golden.json`` holds of one model; 5 decimals are far below any limit."""
    rows = [[round(float(value), 5) for value in row] for row in logits]
    return {"file": file, "labels": list(spec.keys), "frames_sha256": hash_frames(frames), "logits": rows}


def _stored(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        document = json.loads(path.read_text("utf-8"))
        if document["schema"] != SCHEMA:
            raise ValueError(f"its schema is {document['schema']!r}, this version reads {SCHEMA!r}")
        models: dict[str, Any] = document["models"]
        for entry in models.values():
            if np.array(entry["logits"], np.float32).ndim != 2 or not entry["frames_sha256"]:
                raise ValueError("an entry has no table of logits")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{path} is damaged: {error}",
            hint="write it again with 'python -m capsule_edge.export.tools.golden'",
        ) from None
    return models


def _softmax(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))
