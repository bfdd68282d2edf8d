"""Score several model files of one network on the same frames, and compare each with the first."""

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
    """The score of one model file; an undefined figure is None.

    Attributes:
        file: The name of the file.
        backend: The engine that ran it.
        bytes: The size of the file.
        macro_f1: The macro-F1.
        mean_auc: The mean ROC-AUC of each label against the rest.
        agreement: The share of frames to which this file and the first give the same label, 0..1.
        rms_dp: The root mean square difference of the probabilities to the first file's.
    """

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
    """Score model files on the frames of a data set, which are read once.

    Args:
        files: Open model files with the same labels and preprocessing; the others are compared with the first.
        dataset: The labelled frames.
        progress: Called with a line of text before each file is run.

    Raises:
        InputError: The files differ in labels or preprocessing, lack a label of the data set, or a frame cannot be
            read.
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
    reference: Any = None
    for model in files:
        progress(f"{model.path.name} on {model.name}")
        parts = [model.run(frames[at : at + _BATCH]).probabilities for at in range(0, len(frames), _BATCH)]
        answers = np.concatenate(parts)
        reference = answers if reference is None else reference
        found = evaluate(Predictions(**{**vars(base), "probabilities": answers}), resamples=0)
        scores.append(
            Score(
                model.path.name,
                model.name,
                model.path.stat().st_size,
                found["macro_f1"],
                found["mean_auc"],
                float(np.mean(answers.argmax(axis=1) == reference.argmax(axis=1))),
                float(np.sqrt(np.mean((answers.astype(np.float64) - reference) ** 2))),
            )
        )
    return scores
