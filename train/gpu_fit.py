"""The FP32 fit on a GPU machine that has PyTorch and Keras 3 and no TensorFlow.

The same architectures, draws and schedule as ``fit.py``; the weights go over by name (``weights.py``). Nothing here is
needed to train: ``fit.py`` does it on any CPU, this takes seconds where that takes minutes. One step is recorded as a
CUDA graph and replayed, for folds and epochs alike; it computes in bfloat16 with float32 weights.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from capsule_edge.runtime.errors import UsageError

from . import augment, models, weights
from .config import TrainConfig
from .data import Frames, class_prior, draw_epoch, draw_mixing
from .torch_graph import TorchGraph

__all__ = ["Frozen", "GpuTrainer", "build_graph", "move", "record"]


def build_graph(architecture: str, *, size: int, labels: int, branched: bool) -> TorchGraph:
    """The architecture with fresh weights, on the GPU where there is one."""
    os.environ["KERAS_BACKEND"] = "torch"
    import keras
    import torch

    model = models.build(architecture, size=size, labels=labels, keras=keras, branched=branched)
    return TorchGraph.read(model, "cuda" if torch.cuda.is_available() else "cpu")


class Frozen:
    """A teacher: a graph that only answers, with the pixels of the frames in the size that it takes."""

    def __init__(self, graph: TorchGraph, pixels: npt.NDArray[np.uint8]) -> None:
        import torch

        self._whole, self.graph, self.size = graph, graph.folded(), pixels.shape[1]
        self.pixels = torch.from_numpy(pixels).to(graph.device)
        self.static = torch.zeros((1,), device=graph.device)  # a trainer's varied frames in this size

    def assign(self, arrays: weights.Arrays) -> None:
        """Answer with other weights from now on, also where a CUDA graph has recorded this one."""
        self._whole.assign(arrays)
        self.graph.assign(self._whole.folded().arrays())


class GpuTrainer:
    """Fits one recipe on one set of frames; a fit can be repeated with other draws, weights and teachers."""

    def __init__(self, config: TrainConfig, frames: Frames, teachers: Sequence[Frozen] = ()) -> None:
        import torch

        if config.focal or config.patience:
            raise UsageError(
                "focal loss and early stopping are not known here",
                hint="use capsule-edge train, or leave them 0",
            )
        torch.backends.cudnn.benchmark = True
        torch.backends.cudnn.benchmark_limit = 4
        self._config, self._frames, self._teachers = config, frames, tuple(teachers)
        size, keys = frames.pixels.shape[1], frames.keys
        self.graph = build_graph(config.architecture, size=size, labels=len(keys), branched=True)
        self._fresh = self.graph.arrays()
        device = self._device = self.graph.device
        self._pixels = torch.from_numpy(frames.pixels).to(device)
        self._labels = torch.from_numpy(frames.labels).to(device)
        self._x = torch.zeros((config.batch, size, size, 3), device=device)
        for teacher in self._teachers:
            teacher.static = torch.zeros((config.batch, teacher.size, teacher.size, 3), device=device)
        self._target = torch.zeros((config.batch, len(keys)), device=device)
        self._offset = torch.zeros(len(keys), device=device)
        self._rate, self._keep, self._loss = (torch.zeros((), device=device) for _ in range(3))
        trained = list(self.graph.trained.values())
        self._average = [tensor.detach().clone() for tensor in self.graph.tensors().values()]
        # Decay the kernels only: scales and biases are what fine-tuning adjusts.
        groups = [
            {"params": [p for p in trained if p.ndim > 1], "weight_decay": config.weight_decay},
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
        ]
        on_gpu = device == "cuda"
        self._optimizer = torch.optim.AdamW(
            groups, lr=self._rate, eps=1e-7, capturable=on_gpu, foreach=on_gpu
        )
        self._replay: Callable[[], None] | None = None

    def fit(
        self,
        initial: weights.Arrays,
        chances: npt.NDArray[np.float64],
        log: Callable[[dict[str, Any]], None],
    ) -> weights.Arrays:
        """Fit from ``initial`` (layers that it lacks start afresh, the head at zero), drawing by ``chances`` (N,).

        Returns the moving average of the weights, which is left in ``self.graph``.
        """
        import torch

        config, size = self._config, self._frames.pixels.shape[1]
        start = {**self._fresh, **{k: v for k, v in initial.items() if not k.startswith("logits/")}}
        start["logits/kernel"] = np.zeros_like(start["logits/kernel"])
        replay = self._replay or record(self._step, self._optimizer, self._device)
        self._replay = replay
        self.graph.assign({name: start[name] for name in self.graph.tensors()})
        with torch.no_grad():
            for state in self._optimizer.state.values():
                for value in state.values():
                    value.zero_()
            for kept, now in zip(self._average, self.graph.tensors().values(), strict=True):
                kept.copy_(now)
        self._offset.copy_(self._to_device(config.adjustment * np.log(class_prior(self._frames, chances))))
        steps, count = len(self._frames) // config.batch, 0
        for epoch in range(config.epochs):
            started, losses = time.monotonic(), []
            draws = draw_epoch(chances, size, config, epoch, steps)
            rows = torch.from_numpy(draws.rows.astype(np.int64)).to(self._device)
            share = self._to_device(draw_mixing(config, epoch, steps))
            variations = [self._varied(draws.variation)]
            for teacher in self._teachers:
                other = draw_epoch(chances, teacher.size, config, epoch, steps)
                variations.append(self._varied(other.variation))
            for step in range(steps):
                self._prepare(rows[step], share[step], [[v[step] for v in each] for each in variations])
                self._rate.fill_(config.rate(count, config.epochs * steps))
                count += 1
                self._keep.fill_(min(config.ema, count / (9 + count)))
                replay()
                losses.append(self._loss.detach().clone())
            mean = float(torch.stack(losses).mean())
            log({"epoch": epoch, "loss": round(mean, 4), "seconds": round(time.monotonic() - started, 1)})
        with torch.no_grad():
            for kept, now in zip(self._average, self.graph.tensors().values(), strict=True):
                now.copy_(kept)
        return self.graph.arrays()

    def predict(self, rows: npt.NDArray[np.int64], *, batch: int = 256) -> npt.NDArray[np.float32]:
        """Logits (N, labels) of the frames at ``rows`` with the weights that the last fit left."""
        import torch

        parts = []
        with torch.no_grad():
            for at in range(0, len(rows), batch):
                pixels = self._pixels[torch.from_numpy(rows[at : at + batch]).to(self._device)]
                parts.append(self.graph.run((pixels.float() - 128) / 128).cpu().numpy())
        return np.concatenate(parts)

    def _prepare(self, rows: Any, share: Any, variations: list[list[Any]]) -> None:
        """Fill the step's inputs: varied and, by ``share`` (N,), mixed frames in every size, and their labels."""
        import keras
        import torch

        with torch.no_grad():
            wide = self._target.shape[1]
            target = torch.nn.functional.one_hot(self._labels[rows], wide).float()
            self._target.copy_(torch.lerp(target, target.roll(1, 0), share[:, None]))
            places = [(self._pixels, self._x), *((t.pixels, t.static) for t in self._teachers)]
            for (pixels, static), variation in zip(places, variations, strict=True):
                x = augment.apply(pixels[rows], augment.Variation(*variation), keras.ops, move)
                static.copy_(torch.lerp(x, x.roll(1, 0), share[:, None, None, None]))

    def _step(self) -> None:
        import torch

        config = self._config
        with torch.autocast(self._device, torch.bfloat16, enabled=self._device == "cuda"):
            logits = self.graph.run(self._x, training=True)
            with torch.no_grad():
                answers = [t.graph.run(t.static).softmax(1) for t in self._teachers]
        smooth = self._target * (1 - config.label_smoothing) + config.label_smoothing / self._target.shape[1]
        loss = -(smooth * (logits + self._offset).log_softmax(1)).sum(1).mean()
        if answers:
            # The teachers' answers are adjusted already: what they say is learnt without the offset.
            soft = -(torch.stack(answers).mean(0) * logits.log_softmax(1)).sum(1).mean()
            loss = (1 - config.distillation) * loss + config.distillation * soft
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.graph.trained.values(), 5.0, foreach=True)
        self._optimizer.step()
        with torch.no_grad():
            self._loss.copy_(loss)
            torch._foreach_mul_(self._average, self._keep)
            now = torch._foreach_mul(list(self.graph.tensors().values()), 1 - self._keep)
            torch._foreach_add_(self._average, now)

    def _varied(self, variation: augment.Variation) -> list[Any]:
        return [self._to_device(values) for values in variation]

    def _to_device(self, values: npt.NDArray[Any]) -> Any:
        import torch

        return torch.from_numpy(np.asarray(values, np.float32)).to(self._device)


def record(step: Callable[[], None], optimizer: Any, device: str) -> Callable[[], None]:
    """A training step as something to call: a CUDA graph's replay, or on a CPU the step itself."""
    import torch

    def plain() -> None:
        optimizer.zero_grad()
        step()

    if device != "cuda":
        return plain
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            plain()
    torch.cuda.current_stream().wait_stream(stream)
    optimizer.zero_grad()
    recorded = torch.cuda.CUDAGraph()
    with torch.cuda.graph(recorded):
        step()
    return recorded.replay  # type: ignore[no-any-return]


def move(x: Any, move: Any) -> Any:
    """Frames (N, S, S, 3) transformed bilinearly; ``move`` (N, 8) maps output to input pixels."""
    import torch

    size = x.shape[1]
    at = torch.arange(size, device=x.device, dtype=torch.float32).repeat(size, 1)
    here = torch.stack([at, at.T, torch.ones_like(at)], -1).reshape(1, -1, 3)
    there = here @ move[:, :6].reshape(-1, 2, 3).transpose(1, 2)
    grid = (there * 2 - (size - 1)) / (size - 1)
    return torch.nn.functional.grid_sample(
        x.permute(0, 3, 1, 2), grid.reshape(-1, size, size, 2), mode="bilinear", align_corners=True
    ).permute(0, 2, 3, 1)
