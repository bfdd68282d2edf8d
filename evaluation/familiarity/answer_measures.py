"""Measure familiarity by the model's answers, to compare it with the measure ``appearance``.

Two measures are compared: the energy of the logits (Liu et al., Energy-based Out-of-distribution Detection, NeurIPS
2020), and the Mahalanobis distance of the spatial mean of ``features`` from the nearest class (Lee et al., A Simple
Unified Framework for Detecting Out-of-Distribution Samples, NeurIPS 2018).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from capsule_edge.runtime.errors import UsageError
from capsule_edge.runtime.inference import Backend, ModelSpec

from ..datasets import video_mark
from .appearance_fit import FoldRows, choose_threshold
from .disturbances import DISTURBANCES

__all__ = ["FoldModels", "compare_measures", "energy"]

Floats = npt.NDArray[np.float64]
_SHRINKAGE = 0.02
_BATCH = 16


class FoldModels:
    """Models of which each was trained without some videos; a frame is answered by one that has not seen its video.

    Args:
        models: The opened models, all with the labels and the input of ``spec``.
        spec: The model that the rule is fitted for.

    Attributes:
        seen: Number of frames whose video every model has seen.

    Raises:
        UsageError: A model has other labels or another input.
    """

    def __init__(self, models: Sequence[Backend], spec: ModelSpec) -> None:
        for model in models:
            if model.spec.keys != spec.keys or model.spec.input.size != spec.input.size:
                raise UsageError(f"{model.path} has other labels or another input than the model to fit")
        self._models = models
        self._seen = [frozenset(model.spec.provenance.get("training_videos", ())) for model in models]
        self.seen = 0

    def choose(self, video_id: str | None) -> int:
        """Return the number of the model that answers the frames of a video: the first if all have seen it."""
        mark = video_mark(video_id or "")
        unseen = [number for number, marks in enumerate(self._seen) if marks and mark not in marks]
        self.seen += not unseen
        return unseen[0] if unseen else 0

    def answer(self, pixels: npt.NDArray[np.uint8], numbers: Sequence[int]) -> Floats:
        """Return the logits, then the spatial means of ``features``, float64 (n, 2 * labels).

        Args:
            pixels: Model inputs, uint8 RGB (n, size, size, 3).
            numbers: For each the number of the model that answers it.
        """
        chosen = np.array(numbers)
        found = np.empty((len(pixels), 2 * len(self._models[0].spec.labels)))
        for number, model in enumerate(self._models):
            rows = np.flatnonzero(chosen == number)
            for at in range(0, len(rows), _BATCH):
                part = rows[at : at + _BATCH]
                answer = model.run(np.ascontiguousarray(pixels[part]))
                found[part] = np.concatenate([answer.logits, answer.features.mean(axis=(1, 2))], axis=1)
        return found


def energy(logits: Floats) -> Floats:
    """Return the energy of logits (n, labels): high where no label is likely, float64 (n,)."""
    highest = logits.max(axis=1)
    return np.asarray(-highest - np.log(np.exp(logits - highest[:, None]).sum(axis=1)), np.float64)


def compare_measures(
    answers: Floats,
    labels: Sequence[str],
    findings: Sequence[str],
    fold_rows: FoldRows,
    disturbed: Mapping[str, Floats],
    *,
    most: float,
) -> dict[str, Any]:
    """Return, for both measures, the frames set aside by class and the share of disturbed frames that is.

    Args:
        answers: float64 (N, 2 * labels), from ``FoldModels.answer``.
        labels: The label key of each frame.
        findings: The label keys of the findings.
        fold_rows: For each fold the rows to fit to and the rows to measure.
        disturbed: Answers to disturbed frames by the name of the disturbance.
        most: The largest share of the frames of a finding that may be set aside.
    """
    keys, size = np.array(labels), answers.shape[1] // 2
    distances = np.empty(len(answers))
    for rows, held in fold_rows:
        distances[held] = _nearest_class(answers[rows, size:], keys[rows], answers[held, size:])
        # A class of which the fit had no frame is far from all others: that says nothing about the measure.
        distances[held[~np.isin(keys[held], keys[rows])]] = -np.inf
    measured = {
        "energy": (energy(answers[:, :size]), {n: energy(a[:, :size]) for n, a in disturbed.items()}),
        "features": (
            distances,
            {n: _nearest_class(answers[:, size:], keys, a[:, size:]) for n, a in disturbed.items()},
        ),
    }
    tables = {}
    for name, (own, others) in measured.items():
        threshold = choose_threshold(own, labels, findings, most=most)
        tables[name] = {
            "classes": {str(key): float((own[keys == key] > threshold).mean()) for key in np.unique(keys)},
            "disturbances": {
                each.name: float((others[each.name] > threshold).mean())
                for each in DISTURBANCES
                if each.name in others
            },
        }
    return tables


def _nearest_class(fitted: Floats, labels: npt.NDArray[np.str_], values: Floats) -> Floats:
    """Return the Mahalanobis distance of values from the nearest class mean, with one covariance for all classes."""
    means = [fitted[labels == key].mean(axis=0) for key in np.unique(labels)]
    own = np.concatenate(
        [fitted[labels == key] - mean for key, mean in zip(np.unique(labels), means, strict=True)]
    )
    covariance = np.cov(own.T)
    covariance += _SHRINKAGE * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    inverse = np.linalg.inv(covariance)
    squares = [((values - mean) @ inverse * (values - mean)).sum(axis=1) for mean in means]
    return np.asarray(np.sqrt(np.min(squares, axis=0)), np.float64)
