"""Several files of one network on the same frames: what each is worth, and how often it says what the first says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from capsule_edge.runtime.errors import InputError
from capsule_edge.runtime.inference import Backend
from capsule_edge.runtime.preprocessing import preprocess

from ..datasets import Dataset, read_frame
from .metrics import evaluate
from .predictions import Predictions, check_labels

__all__ = ["Score", "score_files"]

_BATCH = 32


@dataclass(frozen=True)
class Score:
    """``agreement`` is the share of frames with the first file's label, ``rms_dp`` the root mean square difference of
    probabilities to it; what is undefined is None."""

    file: str
    backend: str
    bytes: int
    macro_f1: float | None
    mean_auc: float | None
    agreement: float
    rms_dp: float


def score_files(
    files: Sequence[Backend], dataset: Dataset, *, progress: Callable[[str], None] = lambda _: None
) -> list[Score]:
    """A score for each of ``files`` on ``dataset``, whose frames are read once.

    Raises ``InputError`` for files of different labels or preprocessing, labels that they lack, or a frame that cannot
    be read.
    """
    first = files[0].spec
    for other in files[1:]:
        if other.spec.keys != first.keys or other.spec.input != first.input:
            raise InputError(f"{other.path.name} has other labels or preprocessing than {files[0].path.name}")
    check_labels(dataset, first.keys)
    frames = np.stack([preprocess(read_frame(sample), first.input) for sample in dataset.samples])
    base = Predictions(
        files=tuple(dataset.name_of(sample) for sample in dataset.samples),
        labels=np.array([first.keys.index(sample.label) for sample in dataset.samples], np.intp),
        video_ids=tuple(sample.video_id for sample in dataset.samples),
        sources=tuple(sample.source for sample in dataset.samples),
        probabilities=np.empty((0, 0), np.float32),
        keys=first.keys,
    )
    scores: list[Score] = []
    said: Any = None
    for model in files:
        progress(f"{model.path.name} on {model.name}")
        parts = [model.run(frames[at : at + _BATCH]).probabilities for at in range(0, len(frames), _BATCH)]
        answers = np.concatenate(parts)
        said = answers if said is None else said
        found = evaluate(Predictions(**{**vars(base), "probabilities": answers}), resamples=0)
        scores.append(
            Score(
                model.path.name,
                model.name,
                model.path.stat().st_size,
                found["macro_f1"],
                found["mean_auc"],
                float(np.mean(answers.argmax(axis=1) == said.argmax(axis=1))),
                float(np.sqrt(np.mean((answers.astype(np.float64) - said) ** 2))),
            )
        )
    return scores
