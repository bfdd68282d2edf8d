"""Fit in tf_keras on any machine: the FP32 model on labels, then its INT8 twin on the FP32 model's answers.

One plain loop serves both. It leaves a checkpoint after every epoch and goes on from there: draws depend on the epoch
alone, so that a resumed run ends where an uninterrupted one would.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from . import augment, qat, weights
from .config import TrainConfig
from .data import Frames, class_prior, draw_epoch, draw_weights, scale

__all__ = ["fit_fp32", "fit_qat", "predict"]

Note = Callable[[dict[str, Any]], None]
Loss = Callable[[Any, Any], Any]

_CALIBRATION_BATCHES = 32
# KL divergence between softened answers (Hinton et al., 2015): the small probabilities are told apart too.
_SOFTENING = 2.0


def fit_fp32(
    model: Any,
    frames: Frames,
    config: TrainConfig,
    *,
    checkpoint: Path,
    note: Note,
    taught: npt.NDArray[np.float32] | None = None,
) -> None:
    """Fine-tune ``model``, pixels to logits, on labels; it ends with the moving average of its weights.

    ``taught`` are a teacher's probabilities (N, labels), learnt for the share ``config.distillation`` of the loss.
    """
    chances = draw_weights(frames, config)
    offset = tf.constant(config.adjustment * np.log(class_prior(frames, chances)), tf.float32)
    labels = tf.constant(frames.labels)
    answers = None if taught is None else tf.constant(taught)

    def loss_of(pixels: Any, rows: Any) -> Any:
        wide = len(frames.keys)
        target = tf.one_hot(tf.gather(labels, rows), wide) * (1 - config.label_smoothing)
        target += config.label_smoothing / wide
        logits = model(pixels, training=True)
        loss = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(target, logits + offset))
        if taught is None:
            return loss
        # The teachers' answers are adjusted already: what they say is learnt without the offset.
        soft = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(tf.gather(answers, rows), logits))
        return (1 - config.distillation) * loss + config.distillation * soft

    _optimise(model, loss_of, frames, config, chances, checkpoint, note, average=config.ema)


def fit_qat(
    fp32: Any, quantised: Any, frames: Frames, config: TrainConfig, *, checkpoint: Path, note: Note
) -> None:
    """Make ``quantised`` answer as ``fp32`` does: calibrate its ranges, then distil.

    The ranges are held for the last third, so that the weights settle into the ones that ship.
    """
    rng = np.random.default_rng(config.seed)
    rows = rng.choice(len(frames), (_CALIBRATION_BATCHES, config.qat_batch))
    qat.calibrate(quantised, fp32, (scale(frames.pixels[batch]) for batch in rows))

    def loss_of(pixels: Any, _: Any) -> Any:
        taught = tf.nn.log_softmax(fp32(pixels, training=False) / _SOFTENING)
        learnt = tf.nn.log_softmax(quantised(pixels, training=True) / _SOFTENING)
        return _SOFTENING**2 * tf.reduce_mean(tf.reduce_sum(tf.exp(taught) * (taught - learnt), axis=1))

    _optimise(
        quantised, loss_of, frames, config.of_qat(), draw_weights(frames, config), checkpoint, note,
        before_last_third=lambda: qat.freeze_observers(quantised),
    )  # fmt: skip
    qat.refresh_weights(quantised)


def predict(model: Any, pixels: npt.NDArray[np.uint8], *, batch: int = 64) -> npt.NDArray[np.float32]:
    """Logits (N, labels) of preprocessed frames uint8 (N, size, size, 3)."""
    answer = tf.function(lambda x: model(x, training=False), reduce_retracing=True)
    parts = [answer(scale(pixels[at : at + batch])).numpy() for at in range(0, len(pixels), batch)]
    return np.concatenate(parts)


def _optimise(
    model: Any,
    loss_of: Loss,
    frames: Frames,
    config: TrainConfig,
    chances: npt.NDArray[np.float64],
    checkpoint: Path,
    note: Note,
    *,
    average: float = 0.0,
    before_last_third: Callable[[], None] = lambda: None,
) -> None:
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    import keras  # Keras 3, for its ops alone: they run on TensorFlow here as on PyTorch in gpu_fit

    variables = model.trainable_variables
    state = {f"mean/{i}": tf.Variable(tf.zeros_like(v)) for i, v in enumerate(variables)}
    state |= {f"square/{i}": tf.Variable(tf.zeros_like(v)) for i, v in enumerate(variables)}
    state |= {f"average/{i}": tf.Variable(v) for i, v in enumerate(model.weights)} if average else {}
    state |= {f"weight/{i}": v for i, v in enumerate(model.weights)}
    state["count"] = tf.Variable(0.0)
    first = _restore(checkpoint, state)

    @tf.function  # type: ignore[untyped-decorator]
    def step(pixels: Any, rows: Any, variation: Any, rate: Any) -> Any:
        x = augment.apply(pixels, variation, keras.ops, _move)
        with tf.GradientTape() as tape:
            loss = loss_of(x, rows)
        count = state["count"].assign_add(1.0)
        for i, slope in enumerate(tape.gradient(loss, variables)):
            mean = state[f"mean/{i}"].assign(0.9 * state[f"mean/{i}"] + 0.1 * slope)
            square = state[f"square/{i}"].assign(0.999 * state[f"square/{i}"] + 0.001 * slope * slope)
            change = mean / (1 - 0.9**count) / (tf.sqrt(square / (1 - 0.999**count)) + 1e-7)
            # Decay the kernels only: scales and biases are what fine-tuning adjusts.
            decay = config.weight_decay if variables[i].shape.rank > 1 else 0.0
            variables[i].assign_sub(rate * (change + decay * variables[i]))
        if average:
            keep = tf.minimum(average, count / (9 + count))
            for i, value in enumerate(model.weights):
                state[f"average/{i}"].assign(keep * state[f"average/{i}"] + (1 - keep) * value)
        return loss

    steps = max(1, len(frames) // config.batch)
    total = steps * config.epochs
    for epoch in range(first, config.epochs):
        started, losses = time.monotonic(), []
        draws = draw_epoch(chances, frames.pixels.shape[1], config, epoch, steps)
        for at in range(steps):
            done = epoch * steps + at
            if done == total * 2 // 3:
                before_last_third()
            rows = draws.rows[at]
            variation = augment.Variation(*(v[at] for v in draws.variation))
            loss = step(
                frames.pixels[rows], rows, variation, tf.constant(config.rate(done, total), tf.float32)
            )
            losses.append(float(loss))
            if done % 50 == 0:
                note({"step": done, "of": total, "loss": round(float(np.mean(losses[-50:])), 4)})
        _save(checkpoint, state, epoch + 1)
        seconds = round(time.monotonic() - started, 1)
        note({"epoch": epoch, "loss": round(float(np.mean(losses)), 4), "seconds": seconds})
    if average:
        for i, value in enumerate(model.weights):
            value.assign(state[f"average/{i}"])


def _move(x: Any, move: Any) -> Any:
    """Frames (N, S, S, 3) transformed bilinearly; ``move`` (N, 8) maps output to input pixels."""
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=x, transforms=move, output_shape=tf.shape(x)[1:3], fill_value=0.0,
        interpolation="BILINEAR", fill_mode="CONSTANT",
    )  # fmt: skip


def _save(checkpoint: Path, state: dict[str, Any], epoch: int) -> None:
    arrays = {name: variable.numpy() for name, variable in state.items()}
    weights.save(checkpoint, arrays | {"epoch": np.array(epoch)})


def _restore(checkpoint: Path, state: dict[str, Any]) -> int:
    """Go on from a checkpoint where there is one; the answer is the first epoch to run."""
    if not checkpoint.is_file():
        return 0
    arrays = weights.load(checkpoint)
    for name, variable in state.items():
        variable.assign(arrays[name])
    return int(arrays["epoch"])
