"""Train a model with AdamW on drawn batches, with checkpoints and early stopping.

The draws depend on (seed, epoch) alone, and a checkpoint holds everything else, also within an epoch. A run
that was killed therefore ends with exactly the weights of an uninterrupted one. With several workers, each
does the same step on its slice of the batch, and the first worker writes the checkpoint.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tf_keras

from capsule_edge.runtime.errors import InputError

from ..config import TrainConfig
from ..data import Item, TrainingFrames, augment, batches, colours_of, draw_epoch, draw_mixing, unpack
from ..models import weights
from .multi_worker import Workers

__all__ = ["CheckpointSettings", "Judge", "Loss", "Note", "TrainingLoop", "keras_ops", "move"]

Note = Callable[[dict[str, Any]], None]
# (augmented and scaled pixels (N, S, S, 3), rows (N,), share of the neighbour in mixup (N,)) -> loss
Loss = Callable[[Any, Any, Any], Any]
# (weights in the model's order) -> scores of an epoch; early stopping maximises "held_out"
Judge = Callable[[list[npt.NDArray[np.float32]]], dict[str, float]]


@dataclass(frozen=True)
class CheckpointSettings:
    """The file of a checkpoint, and the seconds after which a new one is written within an epoch."""

    path: Path
    every_s: float = 120.0


@dataclass
class _Progress:
    """The progress of training: the next step of the epoch, its losses so far, and the best epoch yet."""

    epoch: int = 0
    step: int = 0
    losses: list[float] = field(default_factory=list)
    seconds: float = 0.0
    best: float = float("-inf")
    best_epoch: int = -1
    ended: bool = False  # a callback has asked for it

    def stopped(self, patience: int) -> bool:
        """Return whether the score has not risen for ``patience`` epochs (0: never), or a callback ended training."""
        return self.ended or (bool(patience) and self.epoch - 1 - self.best_epoch >= patience)


@dataclass
class _Job:
    """The input of one call of ``TrainingLoop.run``; ``saved`` is the time of the last checkpoint."""

    frames: TrainingFrames
    chances: npt.NDArray[np.float64]
    checkpoint: CheckpointSettings
    note: Note
    before_last_third: Callable[[], None]
    judge: Judge | None
    steps: int
    colours: npt.NDArray[np.float32] | None
    frozen: int
    callbacks: Any
    saved: float = field(default_factory=time.monotonic)


class TrainingLoop:
    """Train one model with one loss.

    Args:
        model: a tf_keras model, built in the scope of the workers' strategy.
        loss_of: returns the loss of one batch.
        config: the training configuration.
        average: decay of the moving average of the weights, 0..1; 0 keeps none.
        workers: the workers that share the batch; by default this process alone.
    """

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
            self._free = tf.Variable(1.0, trainable=False)  # 0 while only the last layer learns
        self._state |= {f"weight/{i}": v for i, v in enumerate(model.weights)}
        self._best: list[npt.NDArray[np.float32]] = []
        self.step = tf.function(self._update)

    def run(
        self,
        frames: TrainingFrames,
        chances: npt.NDArray[np.float64],
        checkpoint: CheckpointSettings,
        note: Note,
        *,
        before_last_third: Callable[[], None] = lambda: None,
        judge: Judge | None = None,
        freeze: bool = False,
        callbacks: Sequence[Any] = (),
    ) -> None:
        """Train until the last epoch, or until early stopping; continue from the checkpoint if there is one.

        Args:
            frames: N training frames.
            chances: the probability of each frame to be drawn, float64 (N,).
            checkpoint: where the checkpoint is, and how often to write it.
            note: called with each step, each checkpoint and each epoch.
            before_last_third: called once, before the first step of the last third of the steps.
            judge: scores the weights after each epoch. With ``config.patience`` training stops when the score
                "held_out" has not risen for so many epochs, and the model gets the weights of the best epoch.
            freeze: let only the layer ``logits`` learn at first, for the share ``config.frozen`` of the least number
                of steps.
            callbacks: tf_keras callbacks. Their methods for epochs and batches of training are called; one may set
                ``model.stop_training``. After a restart they are called from the current step on.

        Raises:
            InputError: the checkpoint does not fit the model, or another worker continues at another step.
            OutputError: the checkpoint cannot be written.
            Interrupted: another worker was lost.
        """
        config = self._config
        drawn = chances > 0
        least = config.steps_per_class * len(np.unique(frames.labels[drawn]))
        steps = max(1, int(drawn.sum()) // config.batch, -(-least // config.epochs))
        job = _Job(
            frames, chances, checkpoint, note, before_last_third, judge, steps, colours_of(frames, config),
            frozen=int(config.frozen * least) if freeze else 0,
            callbacks=tf_keras.callbacks.CallbackList(list(callbacks), model=self._model, add_history=False),
        )  # fmt: skip
        with self._workers.together():
            at = self._restore(checkpoint.path)
            self._check_same_step(at.epoch * steps + at.step)
            self._model.stop_training = False
            job.callbacks.on_train_begin()
            while at.epoch < config.epochs and not at.stopped(config.patience if judge else 0):
                self._run_epoch(job, at)
            job.callbacks.on_train_end()
            self._assign_result()

    def _check_same_step(self, done: int) -> None:
        """Raise ``InputError`` if the workers would continue at different steps."""
        if self._workers.mean(done) != done:
            raise InputError(
                f"this worker would continue at step {done}, other workers at other steps",
                hint="give all workers the same --out, a folder that they share",
            )

    def _run_epoch(self, job: _Job, at: _Progress) -> None:
        """Do the remaining steps of an epoch, report the epoch and write a checkpoint."""
        config, began = self._config, time.monotonic() - at.seconds
        total = job.steps * config.epochs
        job.callbacks.on_epoch_begin(at.epoch)
        for item in self._batches(job, at):
            done = at.epoch * job.steps + at.step
            if done == total * 2 // 3:
                job.before_last_third()
            self._free.assign(float(done >= job.frozen))
            job.callbacks.on_train_batch_begin(at.step)
            loss = self.step(item, tf.constant(config.rate(done, total), tf.float32))
            at.losses.append(float(loss))
            job.callbacks.on_train_batch_end(at.step, {"loss": at.losses[-1]})
            at.step += 1
            job.note({"step": done, "of": total, "loss": _short(np.mean(at.losses[-50:]))})
            if time.monotonic() - job.saved >= job.checkpoint.every_s and at.step < job.steps:
                at.seconds = time.monotonic() - began
                self._save(job, at)
        line = self._finish(at, job.judge) | {
            "rate": _short(config.rate((at.epoch + 1) * job.steps - 1, total)),
            "seconds": round(time.monotonic() - began, 1),
        }
        # Report before saving: if the process dies in between, the epoch is repeated and reported again.
        job.note(line)
        job.callbacks.on_epoch_end(at.epoch, {key: value for key, value in line.items() if key != "epoch"})
        at.ended = bool(self._model.stop_training)
        at.epoch, at.step, at.losses, at.seconds = at.epoch + 1, 0, [], 0.0
        self._save(job, at)

    def _batches(self, job: _Job, at: _Progress) -> Any:
        """Return the batches of the current epoch from the current step on, as this worker's share."""
        config = self._config
        drawn = draw_epoch(job.chances, job.frames.pixels.shape[1], config, at.epoch, job.steps, job.colours)
        share, first = draw_mixing(config, at.epoch, job.steps), at.step
        part = self._workers.part(config)
        return self._workers.strategy.distribute_datasets_from_function(
            lambda _: batches(job.frames, drawn, share, first=first, part=part)
        )

    def _assign_result(self) -> None:
        """Give the model the weights of the best epoch, or else the moving average if there is one."""
        result = self._best
        if not result and self._average:
            result = [self._now(f"average/{i}") for i, _ in enumerate(self._model.weights)]
        for variable, value in zip(self._model.weights, result, strict=False):
            variable.assign(value)

    def _update(self, item: Item, rate: Any) -> Any:
        """Do one step: average the gradients of all replicas, then apply AdamW and update the moving average."""
        loss, slopes, fixed = self._workers.strategy.run(self._slopes, args=(item,))
        local, state, count = self._workers.local, self._state, self._state["count"] + 1.0
        free = local(self._free)
        state["count"].assign(count)
        for i, (variable, each) in enumerate(zip(self._variables, slopes, strict=True)):
            learns = 1.0 if variable.name.startswith("logits/") else free
            slope = learns * local(each)
            mean = 0.9 * state[f"mean/{i}"] + 0.1 * slope
            square = 0.999 * state[f"square/{i}"] + 0.001 * slope * slope
            state[f"mean/{i}"].assign(mean)
            state[f"square/{i}"].assign(square)
            change = mean / (1 - 0.9**count) / (tf.sqrt(square / (1 - 0.999**count)) + 1e-7)
            # Decay the kernels only: fine-tuning has to adjust scales and biases.
            decay = self._config.weight_decay if variable.shape.rank > 1 else 0.0
            variable.assign_sub(learns * rate * (change + decay * variable))
        if self._average:
            keep = tf.minimum(self._average, count / (9 + count))
            others = dict(zip((id(v) for v in self._model.non_trainable_variables), fixed, strict=True))
            for i, variable in enumerate(self._model.weights):
                value = local(others[id(variable)]) if id(variable) in others else variable
                state[f"average/{i}"].assign(keep * state[f"average/{i}"] + (1 - keep) * value)
        return local(loss)

    def _slopes(self, item: Item) -> Any:
        """Return loss and gradients, averaged over all replicas, and this replica's non-trainable variables."""
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
        """Return the figures of the epoch, and keep the weights if they are the best yet on held-out frames."""
        line = {"epoch": at.epoch, "loss": _short(np.mean(at.losses))}
        if judge is not None:
            kind = "average" if self._average else "weight"
            weights_now = [self._now(f"{kind}/{i}") for i, _ in enumerate(self._model.weights)]
            # All workers must come to the same decision even if their processors round differently.
            figures = {name: self._workers.mean(value) for name, value in judge(weights_now).items()}
            line |= {name: round(value, 4) for name, value in figures.items()}
            if self._config.patience and figures["held_out"] > at.best:
                at.best, at.best_epoch, self._best = figures["held_out"], at.epoch, weights_now
        return line

    def _now(self, name: str) -> npt.NDArray[np.float32]:
        """Return the current value of a variable of the state."""
        return np.asarray(self._workers.local(self._state[name]))

    def _save(self, job: _Job, at: _Progress) -> None:
        """Let the first worker write the checkpoint, and report it."""
        if self._workers.first:
            arrays = {name: self._now(name) for name in self._state}
            arrays |= {f"best/{i}": value for i, value in enumerate(self._best)}
            weights.save(job.checkpoint.path, arrays | {"progress": np.array(json.dumps(asdict(at)))})
        job.note({"checkpoint": at.epoch * job.steps + at.step})
        job.saved = time.monotonic()

    def _restore(self, path: Path) -> _Progress:
        """Load the checkpoint if there is one, and return how far training is."""
        if not path.is_file():
            return _Progress()
        arrays = weights.load(path)
        odd = [name for name in (*self._state, "progress") if name not in arrays]
        if odd:
            raise InputError(
                f"{path} is the checkpoint of another model or version: it lacks {odd[0]}",
                hint="remove the file to start this part again",
            )
        for name, variable in self._state.items():
            variable.assign(arrays[name])
        self._best = [arrays[f"best/{i}"] for i in range(sum(name.startswith("best/") for name in arrays))]
        return _Progress(**json.loads(str(arrays["progress"])))


def _short(value: Any) -> float:
    """Round to four significant digits."""
    return float(f"{float(value):.4g}")


def keras_ops() -> Any:
    """Return ``keras.ops`` of Keras 3 on TensorFlow.

    ``gpu.torch_training`` uses the same operations on PyTorch.
    """
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    import keras

    return keras.ops


def move(x: Any, how: Any) -> Any:
    """Transform frames (N, S, S, 3) bilinearly; ``how`` (N, 8) maps output pixels to input pixels."""
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=x, transforms=how, output_shape=tf.shape(x)[1:3], fill_value=0.0,
        interpolation="BILINEAR", fill_mode="CONSTANT",
    )  # fmt: skip
