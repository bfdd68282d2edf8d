"""The FP32 fit with Keras 3 on PyTorch, for a GPU machine that has no TensorFlow.

The same architectures, draws and schedule as ``fit.py``; the weights go over by name (``weights.py``). Nothing here
is needed to train: ``fit.py`` does it on any CPU, this takes minutes where that takes hours.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from . import augment, models, weights
from .config import TrainConfig
from .data import Frames, class_prior, draw_epoch

__all__ = ["GpuTrainer"]


class GpuTrainer:
    """Fits one architecture on one set of frames, which stay on the device over folds and settings."""

    def __init__(self, architecture: str, frames: Frames) -> None:
        os.environ["KERAS_BACKEND"] = "torch"
        import keras
        import torch

        self._torch, self._ops, self._frames = torch, keras.ops, frames
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        torch.backends.cudnn.benchmark = True
        size = frames.pixels.shape[1]
        self.model = models.build(architecture, size=size, labels=len(frames.keys), keras=keras)
        self._pixels = torch.from_numpy(frames.pixels).to(self._device)
        self._labels = torch.from_numpy(frames.labels).to(self._device)

    def fit(
        self,
        config: TrainConfig,
        initial: weights.Arrays,
        chances: npt.NDArray[np.float64],
        log: Callable[[dict[str, Any]], None],
    ) -> weights.Arrays:
        """Fine-tune from ``initial`` (a backbone; the head starts at zero), drawing each frame with its chance (N,).

        Returns the moving average of the weights, which is left in ``self.model``.
        """
        torch, model = self._torch, self.model
        weights.assign(model, initial, fresh=("logits",))
        for variable in model.get_layer("logits").weights:
            variable.assign(np.zeros(variable.shape))
        kernels = [v.value for v in model.trainable_variables if len(v.shape) > 1]
        others = [v.value for v in model.trainable_variables if len(v.shape) <= 1]
        optimizer = torch.optim.AdamW(
            # Decay the kernels only: scales and biases are what fine-tuning adjusts. PyTorch multiplies by the rate.
            [{"params": kernels, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}],
            lr=config.learning_rate, eps=1e-7, fused=self._device == "cuda",
        )  # fmt: skip
        average = [v.value.data.clone() for v in model.weights]
        steps = len(self._frames) // config.batch
        offset = self._to_device(config.adjustment * np.log(class_prior(self._frames, chances)))
        count = 0
        for epoch in range(config.epochs):
            started, losses = time.monotonic(), []
            draws = draw_epoch(chances, self._pixels.shape[1], config, epoch, steps)
            rows = torch.from_numpy(draws.rows.astype(np.int64)).to(self._device)
            variation = augment.Variation(*(self._to_device(v) for v in draws.variation))
            for step in range(steps):
                for group in optimizer.param_groups:
                    group["lr"] = config.rate(count, config.epochs * steps)
                with torch.no_grad():
                    now = augment.Variation(*(v[step] for v in variation))
                    x = augment.apply(self._pixels[rows[step]], now, self._ops, self._move)
                logits = model(x, training=True) + offset
                loss = torch.nn.functional.cross_entropy(
                    logits, self._labels[rows[step]], label_smoothing=config.label_smoothing
                )
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                count += 1
                keep = min(config.ema, count / (9 + count))
                with torch.no_grad():
                    torch._foreach_lerp_(average, [v.value.data for v in model.weights], 1 - keep)
                losses.append(loss.detach())
            mean = float(torch.stack(losses).mean())
            log({"epoch": epoch, "loss": round(mean, 4), "seconds": round(time.monotonic() - started, 1)})
        with torch.no_grad():
            for variable, value in zip(model.weights, average, strict=True):
                variable.assign(value)
        return {
            name: np.asarray(value.detach().cpu() if hasattr(value, "detach") else value, np.float32)
            for name, value in weights.tensors(model).items()
        }

    def predict(self, rows: npt.NDArray[np.int64], *, batch: int = 256) -> npt.NDArray[np.float32]:
        """Logits (N, labels) of the frames at ``rows`` with the weights that the last fit left."""
        torch = self._torch
        parts = []
        with torch.no_grad():
            for start in range(0, len(rows), batch):
                pixels = self._pixels[torch.from_numpy(rows[start : start + batch]).to(self._device)]
                logits = self.model((pixels.to(torch.float32) - 128) / 128, training=False)
                parts.append(logits.cpu().numpy())
        return np.concatenate(parts)

    def _move(self, x: Any, move: Any) -> Any:
        """Frames (N, S, S, 3) transformed bilinearly; ``move`` (N, 8) maps output to input pixels."""
        torch, size = self._torch, x.shape[1]
        at = (torch.arange(size, device=x.device, dtype=torch.float32)).repeat(size, 1)
        here = torch.stack([at, at.T, torch.ones_like(at)], -1).reshape(1, -1, 3)
        there = here @ move[:, :6].reshape(-1, 2, 3).transpose(1, 2)
        grid = (there * 2 - (size - 1)) / (size - 1)
        return torch.nn.functional.grid_sample(
            x.permute(0, 3, 1, 2), grid.reshape(-1, size, size, 2), mode="bilinear", align_corners=True
        ).permute(0, 2, 3, 1)

    def _to_device(self, values: npt.NDArray[Any]) -> Any:
        return self._torch.from_numpy(np.asarray(values, np.float32)).to(self._device)
