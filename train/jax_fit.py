"""The FP32 fit with Keras 3 on JAX, for a GPU machine that has no TensorFlow.

The same architectures, draws and schedule as ``fit.py``; the weights go over by name (``weights.py``). Nothing here is needed
to train: ``fit.py`` does it on any CPU, this takes minutes where that takes hours.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from . import models, weights
from .config import TrainConfig
from .data import Frames, batches, class_prior, draw_weights

__all__ = ["JaxTrainer"]


@dataclass
class _State:
    trainable: list[Any]
    fixed: list[Any]  # batch normalisation's statistics
    mean: list[Any]  # Adam's moments
    square: list[Any]
    average: list[Any]  # moving average of all weights, trainable first


class JaxTrainer:
    """Fits one architecture at one size; compiled once, used for every fold and setting."""

    def __init__(self, architecture: str, size: int, labels: int) -> None:
        os.environ["KERAS_BACKEND"] = "jax"
        import jax
        import keras

        self._jax = jax
        self.model = models.build(architecture, size=size, labels=labels, keras=keras)
        self._step: Callable[..., Any] = jax.jit(self._make_step(), donate_argnums=(0, 1, 2, 3, 4))
        self._answer: Callable[..., Any] = jax.jit(
            lambda trainable, fixed, pixels: self.model.stateless_call(
                trainable, fixed, (pixels.astype(np.float32) - 128) / 128, training=False
            )[0]
        )

    def _make_step(self) -> Callable[..., Any]:
        jax, model = self._jax, self.model
        jnp = jax.numpy

        def step(
            trainable: Any, fixed: Any, mean: Any, square: Any, average: Any,
            pixels: Any, labels: Any, offset: Any, knobs: Any,
        ) -> Any:  # fmt: skip
            rate, decay, smoothing, keep, count = (knobs[i] for i in range(5))

            def loss_of(values: Any) -> Any:
                scaled = (pixels.astype(jnp.float32) - 128) / 128
                logits, state = model.stateless_call(values, fixed, scaled, training=True)
                target = jax.nn.one_hot(labels, logits.shape[-1]) * (1 - smoothing) + smoothing / logits.shape[-1]
                return -(target * jax.nn.log_softmax(logits + offset)).sum(-1).mean(), state

            (loss, fixed), slopes = jax.value_and_grad(loss_of, has_aux=True)(trainable)
            mean = [0.9 * m + 0.1 * g for m, g in zip(mean, slopes, strict=True)]
            square = [0.999 * s + 0.001 * g * g for s, g in zip(square, slopes, strict=True)]
            moved = []
            for value, m, s in zip(trainable, mean, square, strict=True):
                change = m / (1 - 0.9**count) / (jnp.sqrt(s / (1 - 0.999**count)) + 1e-7)
                # Decay the kernels only: scales and biases are what fine-tuning adjusts.
                moved.append(value - rate * (change + (decay * value if value.ndim > 1 else 0.0)))
            average = [keep * a + (1 - keep) * v for a, v in zip(average, [*moved, *fixed], strict=True)]
            return moved, fixed, mean, square, average, loss

        return step

    def fit(
        self, frames: Frames, config: TrainConfig, initial: weights.Arrays, log: Callable[[dict[str, Any]], None]
    ) -> weights.Arrays:
        """Fine-tune from ``initial`` (a backbone; the head starts at zero); the averaged weights."""
        jnp = self._jax.numpy
        weights.assign(self.model, initial, partial=True)
        dense = self.model.get_layer("logits")
        dense.kernel.assign(np.zeros(dense.kernel.shape))
        dense.bias.assign(np.zeros(len(frames.keys)))
        # Copies: the step gives its arguments' memory away, and the model's variables keep pointing at them.
        trainable = [jnp.array(v.value) for v in self.model.trainable_variables]
        fixed = [jnp.array(v.value) for v in self.model.non_trainable_variables]
        state = _State(
            trainable, fixed, [jnp.zeros_like(v) for v in trainable], [jnp.zeros_like(v) for v in trainable],
            [jnp.array(v) for v in [*trainable, *fixed]],
        )  # fmt: skip
        steps = len(frames) // config.batch * config.epochs
        prior = class_prior(frames, draw_weights(frames, config))
        offset = jnp.asarray(config.adjustment * np.log(prior), jnp.float32)
        count = 0
        for epoch in range(config.epochs):
            started, losses = time.monotonic(), []
            for pixels, labels in batches(frames, config, epoch):
                keep = min(config.ema, (1 + count) / (10 + count))
                knobs = jnp.asarray(
                    [config.rate(count, steps), config.weight_decay, config.label_smoothing, keep, count + 1],
                    jnp.float32,
                )
                *parts, loss = self._step(
                    state.trainable, state.fixed, state.mean, state.square, state.average,
                    pixels, labels, offset, knobs,
                )  # fmt: skip
                state = _State(*parts)
                losses.append(loss)
                count += 1
            seconds = time.monotonic() - started
            log({"epoch": epoch, "loss": float(np.mean([float(v) for v in losses])), "seconds": round(seconds, 1)})
        for variable, value in zip(
            [*self.model.trainable_variables, *self.model.non_trainable_variables], state.average, strict=True
        ):
            variable.assign(value)
        return weights.collect(self.model)

    def predict(self, pixels: npt.NDArray[np.uint8], *, batch: int = 256) -> npt.NDArray[np.float32]:
        """Logits (N, labels) of preprocessed frames with the weights that the last fit left."""
        trainable = [v.value for v in self.model.trainable_variables]
        fixed = [v.value for v in self.model.non_trainable_variables]
        parts = []
        for start in range(0, len(pixels), batch):
            part = pixels[start : start + batch]
            padded = np.concatenate([part, np.zeros((batch - len(part), *part.shape[1:]), np.uint8)])
            parts.append(np.asarray(self._answer(trainable, fixed, padded), np.float32)[: len(part)])
        return np.concatenate(parts)
