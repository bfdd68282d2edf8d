"""Judge whether a trained model is worth exporting: better than the majority class, and calibrated."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from capsule_edge.evaluation.classification import fit_temperature, is_at_bound

__all__ = ["macro_f1", "majority_macro_f1", "weak_points"]


def macro_f1(labels: npt.NDArray[np.int64], answers: npt.NDArray[np.int64]) -> float:
    """Return macro-F1 over the labels that occur, 0..1.

    Args:
        labels: the true labels, int (N,).
        answers: the predicted labels, int (N,).
    """
    from sklearn.metrics import f1_score

    present = np.unique(labels)
    return float(f1_score(labels, answers, average="macro", labels=present, zero_division=0))


def majority_macro_f1(labels: npt.NDArray[np.int64]) -> float:
    """Return macro-F1 of a program that gives every frame the most frequent of ``labels``, int (N,)."""
    return macro_f1(labels, np.full_like(labels, np.bincount(labels).argmax()))


def weak_points(
    logits: npt.NDArray[np.float32], labels: npt.NDArray[np.int64], keys: Sequence[str]
) -> tuple[str, ...]:
    """Return a sentence for each reason not to export a model; empty for a sound one.

    Args:
        logits: answers to the held-out frames, float32 (N, labels).
        labels: their true labels, int (N,).
        keys: the labels' keys.
    """
    found = []
    reached, constant = macro_f1(labels, logits.argmax(axis=1)), majority_macro_f1(labels)
    if reached <= constant:
        majority = keys[int(np.bincount(labels).argmax())]
        found.append(
            f"the model is no better than the majority class: macro-F1 on {len(labels)} held-out frames is"
            f" {reached:.3f}, answering {majority} always gives {constant:.3f}"
        )
    temperature = fit_temperature(logits, labels)
    if is_at_bound(temperature):
        found.append(
            f"the temperature is {temperature:.3g}, the bound of what is searched: the {len(labels)} held-out frames"
            f" {'are too few or too easy to' if temperature < 1 else 'do not'} calibrate the model"
        )
    return tuple(found)
