"""Fit in tf_keras on any machine: the FP32 model on labels, then its INT8 twin on the FP32 model's answers.

One plain loop serves both (``loop``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from ..config import TrainConfig
from ..data import Frames, class_prior, draw_weights, scale
from ..qat import quantised_model as qat
from . import losses
from .loop import Fit, Judge, Note, Saving, keras_ops
from .multi_worker import Workers

__all__ = ["fit_fp32", "fit_qat", "judge_with", "label_fit", "predict"]

_CALIBRATION_BATCHES = 32
# KL divergence between softened answers (Hinton et al., 2015): the small probabilities are told apart too.
_SOFTENING = 2.0


def fit_fp32(
    model: Any,
    frames: Frames,
    config: TrainConfig,
    *,
    saving: Saving,
    note: Note,
    among: npt.NDArray[np.bool_] | None = None,
    taught: npt.NDArray[np.float32] | None = None,
    judge: Judge | None = None,
    workers: Workers | None = None,
) -> None:
    """Fine-tune ``model``, pixels to logits, on labels; it ends with the moving average of its weights.

    Frames that are not ``among`` (N,) are held out. ``taught`` are a teacher's probabilities (N, labels), learnt for
    the share ``config.distillation`` of the loss. ``judge`` ends the fit early (``config.patience``). ``model`` is
    built in the scope of the ``workers``' strategy.
    """
    chances = draw_weights(frames, config, among)
    fit = label_fit(model, frames, config, chances, taught=taught, workers=workers)
    fit.run(frames, chances, saving, note, judge=judge)


def label_fit(
    model: Any,
    frames: Frames,
    config: TrainConfig,
    chances: npt.NDArray[np.float64],
    *,
    taught: npt.NDArray[np.float32] | None = None,
    workers: Workers | None = None,
) -> Fit:
    """The fit of ``model`` on labels, and on what it is ``taught``, ready to run or to be stepped."""
    ops = keras_ops()
    offset = tf.constant(config.adjustment * np.log(class_prior(frames, chances)), tf.float32)
    labels = tf.constant(frames.labels)
    answers = None if taught is None else tf.constant(taught)

    def loss_of(pixels: Any, rows: Any, share: Any) -> Any:
        target = losses.targets(tf.gather(labels, rows), len(frames.keys), config, ops)
        told = None if answers is None else tf.gather(answers, rows)
        if config.mixup:
            pixels, target = (losses.mix_neighbours(x, share, ops) for x in (pixels, target))
            told = None if told is None else losses.mix_neighbours(told, share, ops)
        logits = model(pixels, training=True)
        loss = losses.label_loss(logits, target, offset, config, ops)
        if told is None:
            return loss
        soft = losses.answer_loss(logits, told, ops)
        return (1 - config.distillation) * loss + config.distillation * soft

    return Fit(model, loss_of, config, average=config.ema, workers=workers)


def judge_with(model: Any, frames: Frames, rows: npt.NDArray[np.int64]) -> Judge:
    """Figures of weights on the frames at ``rows``, which the fit has not seen; ``model`` is to answer alone."""
    from sklearn.metrics import f1_score

    def judge(values: list[npt.NDArray[np.float32]]) -> dict[str, float]:
        for variable, value in zip(model.weights, values, strict=True):
            variable.assign(value)
        labels, answer = frames.labels[rows], predict(model, frames.pixels, rows).argmax(axis=1)
        present = np.unique(labels)
        return {
            "held_out": float(f1_score(labels, answer, average="macro", labels=present, zero_division=0)),
            "held_out_balanced_accuracy": float(
                np.mean([(answer[labels == c] == c).mean() for c in present])
            ),
        }

    return judge


def fit_qat(
    fp32: Any,
    quantised: Any,
    frames: Frames,
    config: TrainConfig,
    *,
    saving: Saving,
    note: Note,
    ranges: Mapping[str, Any] | None = None,
) -> None:
    """Make ``quantised`` answer as ``fp32`` does: calibrate its ranges, then distil for ``config.qat_epochs``.

    The ranges are held for the last third, so that the weights settle into the ones that ship. ``ranges`` by layer,
    learnt elsewhere, are held throughout.
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
        taught = tf.nn.log_softmax(fp32(pixels, training=False) / _SOFTENING)
        learnt = tf.nn.log_softmax(quantised(pixels, training=True) / _SOFTENING)
        return _SOFTENING**2 * tf.reduce_mean(tf.reduce_sum(tf.exp(taught) * (taught - learnt), axis=1))

    Fit(quantised, loss_of, config.of_qat()).run(
        frames, draw_weights(frames, config), saving, note,
        before_last_third=lambda: qat.freeze_observers(quantised),
    )  # fmt: skip
    qat.refresh_weights(quantised)


def predict(
    model: Any, pixels: npt.NDArray[np.uint8], rows: npt.NDArray[np.int64] | None = None, *, batch: int = 64
) -> npt.NDArray[np.float32]:
    """Logits (N, labels) of preprocessed frames uint8 (N, size, size, 3), or of those at ``rows``."""
    answer = tf.function(lambda x: model(x, training=False), reduce_retracing=True)
    rows = np.arange(len(pixels)) if rows is None else rows
    parts = [answer(scale(pixels[rows[at : at + batch]])).numpy() for at in range(0, len(rows), batch)]
    return np.concatenate(parts)
