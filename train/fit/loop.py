"""The one training loop: AdamW over drawn batches, checkpoints that lose nothing, early stopping.

Draws depend on (seed, epoch) alone and a checkpoint holds everything else, also in the midst of an epoch: a run that
was killed ends with the very weights that it would have had. On several workers the same step runs on slices of the
batch, and the first worker writes.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from capsule_edge.runtime.errors import InputError

from ..config import TrainConfig
from ..data import Frames, Item, augment, batches, colours_of, draw_epoch, draw_mixing, unpack
from ..models import weights
from .multi_worker import Workers

__all__ = ["Fit", "Judge", "Loss", "Note", "Saving", "keras_ops", "move"]

Note = Callable[[dict[str, Any]], None]
# Varied and scaled pixels (N, S, S, 3), rows (N,) and the neighbours' share (N,) to the loss.
Loss = Callable[[Any, Any, Any], Any]
# Weights in the model's order to the figures of an epoch; early stopping maximises "held_out".
Judge = Callable[[list[npt.NDArray[np.float32]]], dict[str, float]]


@dataclass(frozen=True)
class Saving:
    """Where a fit's checkpoint is, and after how many seconds at most a new one is written within an epoch."""

    path: Path
    every_s: float = 120.0


@dataclass
class _Progress:
    """Where a fit is: the step of the epoch to do next, its losses so far, and the best epoch yet."""

    epoch: int = 0
    step: int = 0
    losses: list[float] = field(default_factory=list)
    seconds: float = 0.0
    best: float = float("-inf")
    best_epoch: int = -1

    def stopped(self, patience: int) -> bool:
        return bool(patience) and self.epoch - 1 - self.best_epoch >= patience


class Fit:
    """One fit of ``model`` under ``config``; ``run`` goes on from the checkpoint where there is one."""

    def __init__(
        self,
        model: Any,
        loss_of: Loss,
        config: TrainConfig,
        *,
        average: float = 0.0,
        workers: Workers | None = None,
    ) -> None:
        self._ops, self._model, self._loss_of, self._config = keras_ops(), model, loss_of, config
        self._average, self._workers = average, workers or Workers.alone()
        self._workers.synchronise(model)
        self._variables = model.trainable_variables
        with self._workers.strategy.scope():
            zero = {f"{kind}/{i}": v for kind in ("mean", "square") for i, v in enumerate(self._variables)}
            self._state = {name: tf.Variable(tf.zeros(v.shape), trainable=False) for name, v in zero.items()}
            if average:
                for i, v in enumerate(model.weights):
                    start = tf.constant(np.asarray(self._workers.local(v)))
                    self._state[f"average/{i}"] = tf.Variable(start, trainable=False)
            self._state["count"] = tf.Variable(0.0, trainable=False)
        self._state |= {f"weight/{i}": v for i, v in enumerate(model.weights)}
        self._best: list[npt.NDArray[np.float32]] = []
        self.step = tf.function(self._update)

    def run(
        self,
        frames: Frames,
        chances: npt.NDArray[np.float64],
        saving: Saving,
        note: Note,
        *,
        before_last_third: Callable[[], None] = lambda: None,
        judge: Judge | None = None,
    ) -> None:
        """Train on ``frames``, each drawn with its chance (N,); one note a step, a checkpoint and an epoch."""
        with self._workers.together():
            self._run(frames, chances, saving, note, before_last_third, judge)

    def _run(
        self,
        frames: Frames,
        chances: npt.NDArray[np.float64],
        saving: Saving,
        note: Note,
        before_last_third: Callable[[], None],
        judge: Judge | None,
    ) -> None:
        config, at = self._config, self._restore(saving.path)
        steps = max(1, int((chances > 0).sum()) // config.batch)
        total = steps * config.epochs
        done = at.epoch * steps + at.step
        if self._workers.mean(done) != done:
            raise InputError(
                f"this worker would go on at step {done}, others elsewhere",
                hint="--out must be a folder they share",
            )
        part, saved = self._workers.part(config), time.monotonic()
        colours = colours_of(frames, config)
        while at.epoch < config.epochs and not at.stopped(config.patience if judge else 0):
            began = time.monotonic() - at.seconds
            drawn = draw_epoch(chances, frames.pixels.shape[1], config, at.epoch, steps, colours)
            share = draw_mixing(config, at.epoch, steps)
            data = self._workers.strategy.distribute_datasets_from_function(
                lambda _, drawn=drawn, share=share, first=at.step: batches(
                    frames, drawn, share, first=first, part=part
                )
            )
            for item in data:
                done = at.epoch * steps + at.step
                if done == total * 2 // 3:
                    before_last_third()
                loss = self.step(item, tf.constant(config.rate(done, total), tf.float32))
                at.losses.append(float(loss))
                at.step += 1
                note({"step": done, "of": total, "loss": _short(np.mean(at.losses[-50:]))})
                if time.monotonic() - saved >= saving.every_s and at.step < steps:
                    at.seconds = time.monotonic() - began
                    self._save(saving.path, at)
                    note({"checkpoint": done + 1})
                    saved = time.monotonic()
            line = self._finish(at, judge)
            line |= {
                "rate": _short(config.rate((at.epoch + 1) * steps - 1, total)),
                "seconds": round(time.monotonic() - began, 1),
            }
            # The line first: if the process dies in between, the epoch is done and told again.
            note(line)
            at.epoch, at.step, at.losses, at.seconds = at.epoch + 1, 0, [], 0.0
            self._save(saving.path, at)
            note({"checkpoint": at.epoch * steps})
            saved = time.monotonic()
        last = self._best or (
            [self._now(f"average/{i}") for i, _ in enumerate(self._model.weights)] if self._average else []
        )
        for value, kept in zip(self._model.weights, last, strict=False):
            value.assign(kept)

    def _update(self, item: Item, rate: Any) -> Any:
        """One step: gradients in each replica, averaged; then AdamW and the moving average, the same everywhere."""
        loss, slopes, fixed = self._workers.strategy.run(self._slopes, args=(item,))
        local, state, count = self._workers.local, self._state, self._state["count"] + 1.0
        state["count"].assign(count)
        for i, (variable, each) in enumerate(zip(self._variables, slopes, strict=True)):
            slope = local(each)
            mean = 0.9 * state[f"mean/{i}"] + 0.1 * slope
            square = 0.999 * state[f"square/{i}"] + 0.001 * slope * slope
            state[f"mean/{i}"].assign(mean)
            state[f"square/{i}"].assign(square)
            change = mean / (1 - 0.9**count) / (tf.sqrt(square / (1 - 0.999**count)) + 1e-7)
            # Decay the kernels only: scales and biases are what fine-tuning adjusts.
            decay = self._config.weight_decay if variable.shape.rank > 1 else 0.0
            variable.assign_sub(rate * (change + decay * variable))
        if self._average:
            keep = tf.minimum(self._average, count / (9 + count))
            others = dict(zip((id(v) for v in self._model.non_trainable_variables), fixed, strict=True))
            for i, variable in enumerate(self._model.weights):
                value = local(others[id(variable)]) if id(variable) in others else variable
                state[f"average/{i}"].assign(keep * state[f"average/{i}"] + (1 - keep) * value)
        return local(loss)

    def _slopes(self, item: Item) -> Any:
        """A replica's loss and gradients, averaged over all, and what else the model keeps (its statistics)."""
        pixels, rows, share, variation = unpack(item)
        x = augment.apply(pixels, variation, self._ops, move)
        with tf.GradientTape() as tape:
            loss = self._loss_of(x, rows, share)
        slopes = tape.gradient(loss, self._variables)
        if self._workers.strategy.num_replicas_in_sync > 1:
            here = tf.distribute.get_replica_context()
            loss, slopes = here.all_reduce(tf.distribute.ReduceOp.MEAN, (loss, slopes))
        return loss, slopes, [tf.identity(v) for v in self._model.non_trainable_variables]

    def _finish(self, at: _Progress, judge: Judge | None) -> dict[str, Any]:
        """The line of an epoch; the weights are kept where they are the best yet on what they have not seen."""
        line = {"epoch": at.epoch, "loss": _short(np.mean(at.losses))}
        if judge is not None:
            kind = "average" if self._average else "weight"
            weights_now = [self._now(f"{kind}/{i}") for i, _ in enumerate(self._model.weights)]
            # All workers must come to one decision, also where their processors round differently.
            figures = {name: self._workers.mean(value) for name, value in judge(weights_now).items()}
            line |= {name: round(value, 4) for name, value in figures.items()}
            if figures["held_out"] > at.best:
                at.best, at.best_epoch, self._best = figures["held_out"], at.epoch, weights_now
        return line

    def _now(self, name: str) -> npt.NDArray[np.float32]:
        return np.asarray(self._workers.local(self._state[name]))

    def _save(self, path: Path, at: _Progress) -> None:
        if self._workers.first:
            arrays = {name: self._now(name) for name in self._state}
            arrays |= {f"best/{i}": value for i, value in enumerate(self._best)}
            weights.save(path, arrays | {"progress": np.array(json.dumps(asdict(at)))})

    def _restore(self, path: Path) -> _Progress:
        if not path.is_file():
            return _Progress()
        arrays = weights.load(path)
        odd = [name for name in (*self._state, "progress") if name not in arrays]
        if odd:
            raise InputError(
                f"{path} is the checkpoint of another fit or version: it lacks {odd[0]}",
                hint="remove it to start again",
            )
        for name, variable in self._state.items():
            variable.assign(arrays[name])
        self._best = [arrays[f"best/{i}"] for i in range(sum(name.startswith("best/") for name in arrays))]
        return _Progress(**json.loads(str(arrays["progress"])))


def _short(value: Any) -> float:
    """Four digits, of a loss that may be small."""
    return float(f"{float(value):.4g}")


def keras_ops() -> Any:
    """Those of Keras 3, on TensorFlow: the same code runs on PyTorch in gpu_fit."""
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    import keras

    return keras.ops


def move(x: Any, how: Any) -> Any:
    """Frames (N, S, S, 3) transformed bilinearly; ``how`` (N, 8) maps output to input pixels."""
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=x, transforms=how, output_shape=tf.shape(x)[1:3], fill_value=0.0,
        interpolation="BILINEAR", fill_mode="CONSTANT",
    )  # fmt: skip
