"""What a fit on labels minimises, written with ``keras.ops``: the same on TensorFlow and PyTorch.

Cross-entropy of logit-adjusted answers (Menon et al., ICLR 2021) with smoothed labels; the focal loss of Lin et al.
(ICCV 2017), for targets that are not one class alone; mixup (Zhang et al., ICLR 2018) of neighbours in the batch.
"""

from __future__ import annotations

from typing import Any

from ..config import TrainConfig

__all__ = ["answer_loss", "label_loss", "mix_neighbours", "targets"]


def targets(labels: Any, wide: int, config: TrainConfig, ops: Any) -> Any:
    """Labels (N,) as smoothed distributions over ``wide`` classes, float32 (N, wide)."""
    hard = ops.one_hot(labels, wide, dtype="float32")
    return hard * (1 - config.label_smoothing) + config.label_smoothing / wide


def mix_neighbours(x: Any, share: Any, ops: Any) -> Any:
    """Each of ``x`` (N, ...) with ``share`` (N,) of the one before it, the first with the last's."""
    share = ops.reshape(share, (-1,) + (1,) * (len(x.shape) - 1))
    return (1 - share) * x + share * ops.roll(x, 1, axis=0)


def label_loss(logits: Any, target: Any, offset: Any, config: TrainConfig, ops: Any) -> Any:
    """Mean over the batch; ``target`` (N, labels) sums to one, ``offset`` (labels,) is the adjustment of the logits.

    With ``config.focal`` g above 0 a class counts by (1 - p)^g: what is answered rightly already counts little.
    """
    log_p = ops.log_softmax(logits + offset, axis=-1)
    if config.focal:
        # Where p is 1 the power's slope would be 0 * inf for g below 1. Python's operators, not ops.power: a constant
        # copied to the GPU cannot be part of a step that is recorded there.
        log_p = log_p * (ops.relu(1 - ops.exp(log_p)) + 1e-6) ** config.focal
    return -ops.mean(ops.sum(target * log_p, axis=-1))


def answer_loss(logits: Any, taught: Any, ops: Any) -> Any:
    """Cross-entropy to a teacher's probabilities (N, labels).

    The teacher's answers are adjusted already: what it says is learnt without the offset.
    """
    return -ops.mean(ops.sum(taught * ops.log_softmax(logits, axis=-1), axis=-1))
