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

from ..config import TrainConfig
from ..data import Frames, class_prior
from ..fit import label_loss
from ..models import architectures, weights
from .feed import Feed, Frozen
from .torch_graph import TorchGraph

__all__ = ["GpuTrainer", "build_graph", "record"]


def build_graph(architecture: str, *, size: int, labels: int, branched: bool) -> TorchGraph:
    """The architecture with fresh weights, on the GPU where there is one."""
    os.environ["KERAS_BACKEND"] = "torch"
    import keras
    import torch

    model = architectures.build(architecture, size=size, labels=labels, keras=keras, branched=branched)
    return TorchGraph.read(model, "cuda" if torch.cuda.is_available() else "cpu")


class GpuTrainer:
    """Fits one recipe on one set of frames; a fit can be repeated with other draws, weights and teachers."""

    def __init__(self, config: TrainConfig, frames: Frames, teachers: Sequence[Frozen] = ()) -> None:
        import torch

        if config.patience:
            raise UsageError(
                "early stopping is not known here", hint="use capsule-edge train, or leave patience 0"
            )
        torch.backends.cudnn.benchmark = True
        torch.backends.cudnn.benchmark_limit = 4
        self._config, self._frames = config, frames
        size, keys = frames.pixels.shape[1], frames.keys
        self.graph = build_graph(config.architecture, size=size, labels=len(keys), branched=True)
        self._fresh = self.graph.arrays()
        device = self._device = self.graph.device
        self.feed = Feed(config, frames.pixels, frames.labels, len(keys), device, teachers)
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

        config = self._config
        start = {**self._fresh, **{k: v for k, v in initial.items() if not k.startswith("logits/")}}
        start["logits/kernel"] = np.zeros_like(start["logits/kernel"])
        self._replay = replay = self._replay or record(self._step, self._optimizer, self._device)
        self.graph.assign({name: start[name] for name in self.graph.tensors()})
        with torch.no_grad():
            for state in self._optimizer.state.values():
                for value in state.values():
                    value.zero_()
            for kept, now in zip(self._average, self.graph.tensors().values(), strict=True):
                kept.copy_(now)
        offset = config.adjustment * np.log(class_prior(self._frames, chances))
        self._offset.copy_(torch.from_numpy(offset.astype(np.float32)))
        steps, count = len(self._frames) // config.batch, 0
        for epoch in range(config.epochs):
            started, losses = time.monotonic(), []
            for _ in self.feed.steps(chances, epoch, steps):
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
                pixels = self.feed.pixels[torch.from_numpy(rows[at : at + batch]).to(self._device)]
                parts.append(self.graph.run((pixels.float() - 128) / 128).cpu().numpy())
        return np.concatenate(parts)

    def _step(self) -> None:
        import keras
        import torch

        config = self._config
        with torch.autocast(self._device, torch.bfloat16, enabled=self._device == "cuda"):
            logits = self.graph.run(self.feed.x, training=True)
        target = self.feed.target
        smooth = target * (1 - config.label_smoothing) + config.label_smoothing / target.shape[1]
        loss = label_loss(logits.float(), smooth, self._offset, config, keras.ops)
        if self.feed.taught:
            # The teachers' answers are adjusted already: what they say is learnt without the offset.
            soft = -(self.feed.soft * logits.log_softmax(1)).sum(1).mean()
            loss = (1 - config.distillation) * loss + config.distillation * soft
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.graph.trained.values(), 5.0, foreach=True)
        self._optimizer.step()
        with torch.no_grad():
            self._loss.copy_(loss)
            torch._foreach_mul_(self._average, self._keep)
            now = torch._foreach_mul(list(self.graph.tensors().values()), 1 - self._keep)
            torch._foreach_add_(self._average, now)


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
