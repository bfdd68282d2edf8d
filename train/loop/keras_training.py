"""Train in tf_keras on any machine: the FP32 model on labels, then its INT8 twin on the FP32 model's answers.

Both use the same ``TrainingLoop``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from ..config import TrainConfig
from ..data import TrainingFrames, class_prior, draw_weights, scale
from ..qat import quantised_model as qat
from ..weakness import macro_f1, majority_macro_f1
from . import losses
from .multi_worker import Workers
from .normalisation import re_estimate
from .training_loop import CheckpointSettings, Judge, Note, TrainingLoop, keras_ops

__all__ = ["fit_fp32", "fit_qat", "judge_with", "label_loop", "predict"]

OwnLoss = Callable[[Any, Any], Any]

_CALIBRATION_BATCHES = 32
_JUDGE_BATCHES = 4
# The temperature of the distillation (Hinton et al., 2015). It makes small probabilities count too.
_SOFTENING = 2.0


def fit_fp32(
    model: Any,
    frames: TrainingFrames,
    config: TrainConfig,
    *,
    checkpoint: CheckpointSettings,
    note: Note,
    among: npt.NDArray[np.bool_] | None = None,
    teacher_answers: npt.NDArray[np.float32] | None = None,
    judge: Judge | None = None,
    freeze: bool = False,
    workers: Workers | None = None,
    own_loss: OwnLoss | None = None,
    callbacks: Sequence[Any] = (),
) -> None:
    """Train ``model`` on labels. It ends with the moving average of its weights.

    Args:
        model: maps pixels float32 (n, size, size, 3) to logits; built in the scope of the workers' strategy.
        frames: N training frames.
        config: the training configuration.
        checkpoint: where the checkpoint is, and how often to write it.
        note: called with each step, checkpoint and epoch.
        among: which frames may be drawn, bool (N,); by default all. The others are held out.
        teacher_answers: the teachers' probabilities, float32 (N, labels). They have the share ``config.distillation``
            of the loss.
        judge: scores each epoch, also for early stopping (``config.patience``).
        freeze: let only the last layer learn at first (``config.frozen``).
        workers: the workers that share the batch.
        own_loss: replaces the loss on labels (``label_loop``).
        callbacks: tf_keras callbacks (``TrainingLoop.run``).

    Raises:
        InputError: the checkpoint does not fit.
        OutputError: the checkpoint cannot be written.
        Interrupted: another worker was lost.
    """
    chances = draw_weights(frames, config, among)
    loop = label_loop(
        model, frames, config, chances, teacher_answers=teacher_answers, workers=workers, own_loss=own_loss
    )
    loop.run(frames, chances, checkpoint, note, judge=judge, freeze=freeze, callbacks=callbacks)


def label_loop(
    model: Any,
    frames: TrainingFrames,
    config: TrainConfig,
    chances: npt.NDArray[np.float64],
    *,
    teacher_answers: npt.NDArray[np.float32] | None = None,
    workers: Workers | None = None,
    own_loss: OwnLoss | None = None,
) -> TrainingLoop:
    """Return the ``TrainingLoop`` of ``model`` on labels and on teachers, to run or to call step by step.

    Args:
        model: maps pixels float32 (n, size, size, 3) to logits.
        frames: N training frames.
        config: the training configuration.
        chances: the probability of each frame to be drawn, float64 (N,).
        teacher_answers: the teachers' probabilities, float32 (N, labels).
        workers: the workers that share the batch.
        own_loss: replaces the loss on labels. It is called with the smoothed and mixed targets, float32 (n, labels),
            and the adjusted logits, float32 (n, labels); its mean is taken. ``config.focal`` is not applied then.
    """
    ops = keras_ops()
    offset = tf.constant(config.adjustment * np.log(class_prior(frames, chances)), tf.float32)
    labels = tf.constant(frames.labels)
    answers = None if teacher_answers is None else tf.constant(teacher_answers)

    def loss_of(pixels: Any, rows: Any, share: Any) -> Any:
        target = losses.targets(tf.gather(labels, rows), len(frames.keys), config, ops)
        soft_target = None if answers is None else tf.gather(answers, rows)
        if config.mixup:
            pixels, target = (losses.mix_neighbours(x, share, ops) for x in (pixels, target))
            if soft_target is not None:
                soft_target = losses.mix_neighbours(soft_target, share, ops)
        logits = model(pixels, training=True)
        if own_loss is None:
            loss = losses.label_loss(logits, target, offset, config, ops)
        else:
            loss = tf.reduce_mean(own_loss(target, logits + offset))
        if soft_target is None:
            return loss
        soft = losses.answer_loss(logits, soft_target, ops)
        return (1 - config.distillation) * loss + config.distillation * soft

    return TrainingLoop(model, loss_of, config, average=config.ema, workers=workers)


def judge_with(
    model: Any,
    frames: TrainingFrames,
    rows: npt.NDArray[np.int64],
    learnt_from: npt.NDArray[np.int64],
    *,
    seed: int,
) -> Judge:
    """Return a function that scores weights on the frames at ``rows``, which training must not see.

    Args:
        model: a model of the same architecture, used for nothing else.
        frames: N training frames.
        rows: the held-out frames, int (n,).
        learnt_from: the frames that training may draw, int (m,). The statistics of batch normalisation are estimated
            on some of them first, as at the end of training.
        seed: draws these frames.

    Returns:
        A function from weights to "held_out" (macro-F1), "held_out_majority" (that of the most frequent class given
        to every frame) and "held_out_balanced_accuracy".
    """

    def judge(values: list[npt.NDArray[np.float32]]) -> dict[str, float]:
        for variable, value in zip(model.weights, values, strict=True):
            variable.assign(value)
        re_estimate(model, frames, learnt_from, seed=seed, batches=_JUDGE_BATCHES)
        labels, answer = frames.labels[rows], predict(model, frames.pixels, rows).argmax(axis=1)
        present = np.unique(labels)
        return {
            "held_out": macro_f1(labels, answer),
            "held_out_majority": majority_macro_f1(labels),
            "held_out_balanced_accuracy": float(
                np.mean([(answer[labels == c] == c).mean() for c in present])
            ),
        }

    return judge


def fit_qat(
    fp32: Any,
    quantised: Any,
    frames: TrainingFrames,
    config: TrainConfig,
    *,
    checkpoint: CheckpointSettings,
    note: Note,
    ranges: Mapping[str, Any] | None = None,
) -> None:
    """Train ``quantised`` to answer as ``fp32`` does.

    Its ranges are calibrated first, then it is distilled for ``config.qat_epochs`` epochs. The ranges are
    frozen for the last third of the steps, so that the weights adapt to the ranges that ship.

    Args:
        fp32: the FP32 model.
        quantised: its QAT model (``qat.quantize``).
        frames: the training frames.
        config: the training configuration.
        checkpoint: where the checkpoint is, and how often to write it.
        note: called with each step, checkpoint and epoch.
        ranges: (low, high) by layer, learnt elsewhere. They replace the calibration and stay frozen.

    Raises:
        InputError: the checkpoint does not fit.
        OutputError: the checkpoint cannot be written.
    """
    if ranges:
        qat.set_ranges(quantised, {layer: (float(low), float(high)) for layer, (low, high) in ranges.items()})
        qat.freeze_observers(quantised)
    else:
        rng = np.random.default_rng(config.seed)
        rows = rng.choice(len(frames), (_CALIBRATION_BATCHES, config.qat_batch))
        qat.calibrate(quantised, fp32, (scale(frames.pixels[batch]) for batch in rows))
    if not config.qat_epochs:
        return

    def loss_of(pixels: Any, *_: Any) -> Any:
        wanted = tf.nn.log_softmax(fp32(pixels, training=False) / _SOFTENING)
        answered = tf.nn.log_softmax(quantised(pixels, training=True) / _SOFTENING)
        return _SOFTENING**2 * tf.reduce_mean(tf.reduce_sum(tf.exp(wanted) * (wanted - answered), axis=1))

    TrainingLoop(quantised, loss_of, config.of_qat()).run(
        frames, draw_weights(frames, config), checkpoint, note,
        before_last_third=lambda: qat.freeze_observers(quantised),
    )  # fmt: skip
    qat.refresh_weights(quantised)


def predict(
    model: Any, pixels: npt.NDArray[np.uint8], rows: npt.NDArray[np.int64] | None = None, *, batch: int = 64
) -> npt.NDArray[np.float32]:
    """Return the logits of preprocessed frames.

    Args:
        model: a tf_keras model.
        pixels: uint8 RGB (N, size, size, 3).
        rows: the frames to answer for, int (n,); by default all.
        batch: frames at a time.

    Returns:
        float32 (n, labels).
    """
    answer = tf.function(lambda x: model(x, training=False), reduce_retracing=True)
    rows = np.arange(len(pixels)) if rows is None else rows
    parts = [answer(scale(pixels[rows[at : at + batch]])).numpy() for at in range(0, len(rows), batch)]
    return np.concatenate(parts)
