"""Cross-validation by video: the fold of each frame, and the rows that a fold's model must not learn from."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from capsule_edge.evaluation.datasets import splits

from .frames import TrainingFrames, is_real
from .transplants import made_of

__all__ = ["fold_of", "fold_of_real", "mask_unseen", "withheld_from_fold"]

_FOLD_SEED = 0
_UNSEEN_LOGIT = np.float32(-30.0)


def fold_of(frames: TrainingFrames, folds: int) -> npt.NDArray[np.int64]:
    """Return the fold of each frame, int (N,) in 0..``folds`` - 1.

    The folds are stratified by label, and no video is in two of them.

    Raises:
        InputError: there are too few videos for ``folds`` folds.
    """
    return splits.fold_of(frames.labels, frames.videos, folds, seed=_FOLD_SEED)


def fold_of_real(frames: TrainingFrames, folds: int) -> npt.NDArray[np.int64]:
    """Return the fold of each camera frame, int (N,), and -1 for rendered and transplanted frames.

    Raises:
        InputError: there are too few videos for ``folds`` folds.
    """
    fold = np.full(len(frames), -1)
    real = np.flatnonzero(is_real(frames.videos))
    fold[real] = fold_of(frames.without_pixels().take(real), folds)
    return fold


def withheld_from_fold(
    frames: TrainingFrames, fold: npt.NDArray[np.int64], number: int
) -> npt.NDArray[np.bool_]:
    """Return which frames a model must not learn from if it is to be tested on fold ``number``.

    These are the frames of the fold and the transplants that were made from its videos.

    Args:
        frames: N frames.
        fold: the fold of each frame, int (N,), from ``fold_of_real``.
        number: the fold on which the model will be tested.

    Returns:
        bool (N,).
    """
    held_out = fold == number
    return np.asarray(held_out | made_of(frames.videos, set(frames.videos[held_out])))


def mask_unseen(
    logits: npt.NDArray[np.float32], labels: npt.NDArray[np.int64], seen: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Suppress the logits of classes that the answering model never saw.

    If all frames of a class come from one video, the model that is tested on this video was trained without the
    class. Its logit for the class means nothing.

    Args:
        logits: out-of-fold logits, float32 (N, labels).
        labels: the true label of each frame, int (N,).
        seen: which classes the model of each frame was trained on, bool (N, labels).

    Returns:
        The logits with -30 for unseen classes, float32 (N, labels), and which frames belong to a class that their
        model saw, bool (N,).
    """
    return np.where(seen, logits, _UNSEEN_LOGIT), seen[np.arange(len(labels)), labels]
