"""The loss on labels, written with ``keras.ops`` so that TensorFlow and PyTorch compute the same.

It is the cross-entropy of logit-adjusted answers (Menon et al., ICLR 2021) to smoothed labels. It can be the
focal loss (Lin et al., ICCV 2017), extended to targets of several classes, and mix neighbours in the batch
(mixup, Zhang et al., ICLR 2018).
"""

from __future__ import annotations

from typing import Any

from ..config import TrainConfig

__all__ = ["answer_loss", "label_loss", "mix_neighbours", "targets"]


def targets(labels: Any, wide: int, config: TrainConfig, ops: Any) -> Any:
    """Return labels (N,) as smoothed distributions over ``wide`` classes, float32 (N, wide)."""
    hard = ops.one_hot(labels, wide, dtype="float32")
    return hard * (1 - config.label_smoothing) + config.label_smoothing / wide


def mix_neighbours(x: Any, share: Any, ops: Any) -> Any:
    """Mix each item with the one before it in the batch, and the first with the last.

    Args:
        x: the items, float32 (N, ...).
        share: the share of the neighbour in each item, float32 (N,) in 0..1.
        ops: ``keras.ops``.

    Returns:
        float32 (N, ...).
    """
    share = ops.reshape(share, (-1,) + (1,) * (len(x.shape) - 1))
    return (1 - share) * x + share * ops.roll(x, 1, axis=0)


def label_loss(logits: Any, target: Any, offset: Any, config: TrainConfig, ops: Any) -> Any:
    """Return the mean loss over a batch.

    With ``config.focal`` g above 0 each class is weighted by (1 - p)^g, so that correct answers count little.

    Args:
        logits: float32 (N, labels).
        target: the wanted distributions, float32 (N, labels); each row sums to 1.
        offset: the logit adjustment, float32 (labels,).
        config: the training configuration.
        ops: ``keras.ops``.
    """
    log_p = ops.log_softmax(logits + offset, axis=-1)
    if config.focal:
        # Without 1e-6 the gradient of the power would be 0 * inf where p is 1 and g below 1. Use Python's operator:
        # ops.power would copy a constant to the GPU, which a recorded CUDA graph does not allow.
        log_p = log_p * (ops.relu(1 - ops.exp(log_p)) + 1e-6) ** config.focal
    return -ops.mean(ops.sum(target * log_p, axis=-1))


def answer_loss(logits: Any, teacher_answers: Any, ops: Any) -> Any:
    """Return the cross-entropy to the teachers' probabilities ``teacher_answers`` (N, labels).

    There is no offset: the teachers' answers are adjusted already.
    """
    return -ops.mean(ops.sum(teacher_answers * ops.log_softmax(logits, axis=-1), axis=-1))
