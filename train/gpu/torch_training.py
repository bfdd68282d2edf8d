"""FP32 training on a GPU machine that has PyTorch and Keras 3 and no TensorFlow.

The architectures, draws and schedule are those of ``fit.keras_training``, and weights are carried over by
name (``models.weights``). Nothing here is needed to train: ``fit.keras_training`` runs on any CPU, and this
module takes seconds where that one takes minutes. One step is recorded as a CUDA graph and replayed for all
folds and epochs. It computes in bfloat16 with float32 weights.
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
from ..data import TrainingFrames, class_prior
from ..loop import label_loss
from ..models import architectures, weights
from .batch_feed import BatchFeed, FrozenTeacher
from .torch_graph import TorchGraph

__all__ = ["GpuTrainer", "build_graph", "record"]


def build_graph(architecture: str, *, size: int, labels: int, branched: bool) -> TorchGraph:
    """Return the architecture with fresh weights, on the GPU if there is one."""
    os.environ["KERAS_BACKEND"] = "torch"
    import keras
    import torch

    model = architectures.build(architecture, size=size, labels=labels, keras=keras, branched=branched)
    return TorchGraph.read(model, "cuda" if torch.cuda.is_available() else "cpu")


class GpuTrainer:
    """Train one recipe on one set of frames. Training can be repeated with other draws, weights and teachers.

    Args:
        config: the recipe.
        frames: N training frames.
        teachers: the teachers, if there are any.

    Raises:
        UsageError: the recipe asks for early stopping, or its architecture has a layer that ``TorchGraph``
            lacks.
    """

    def __init__(
        self, config: TrainConfig, frames: TrainingFrames, teachers: Sequence[FrozenTeacher] = ()
    ) -> None:
        import torch

        if config.patience:
            raise UsageError(
                f"patience is {config.patience}, allowed on a GPU is 0: there is no early stopping",
                hint="train with capsule-edge train, or set patience to 0",
            )
        torch.backends.cudnn.benchmark = True
        torch.backends.cudnn.benchmark_limit = 4
        self._config, self._frames = config, frames
        size, keys = frames.pixels.shape[1], frames.keys
        self.graph = build_graph(config.architecture, size=size, labels=len(keys), branched=True)
        self._fresh = self.graph.arrays()
        device = self._device = self.graph.device
        self.feed = BatchFeed(config, frames.pixels, frames.labels, len(keys), device, teachers)
        self._offset = torch.zeros(len(keys), device=device)
        self._rate, self._keep, self._loss = (torch.zeros((), device=device) for _ in range(3))
        trained = list(self.graph.trained.values())
        self._average = [tensor.detach().clone() for tensor in self.graph.tensors().values()]
        # Decay the kernels only: fine-tuning has to adjust scales and biases.
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
        """Train from ``initial`` and return the moving average of the weights.

        The graph is left with these weights.

        Args:
            initial: weights by name. Layers that it lacks start afresh, the head at zero.
            chances: the probability of each frame to be drawn, float64 (N,).
            log: called with a line after each epoch.
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
        """Return logits of the frames at ``rows`` with the current weights.

        Args:
            rows: int (n,).
            batch: frames at a time.

        Returns:
            float32 (n, labels).
        """
        import torch

        parts = []
        with torch.no_grad():
            for at in range(0, len(rows), batch):
                pixels = self.feed.pixels[torch.from_numpy(rows[at : at + batch]).to(self._device)]
                parts.append(self.graph.run((pixels.float() - 128) / 128).cpu().numpy())
        return np.concatenate(parts)

    def _step(self) -> None:
        """Do one training step on the inputs that ``feed`` has filled, and update the moving average."""
        import keras
        import torch

        config = self._config
        with torch.autocast(self._device, torch.bfloat16, enabled=self._device == "cuda"):
            logits = self.graph.run(self.feed.x, training=True)
        target = self.feed.target
        smooth = target * (1 - config.label_smoothing) + config.label_smoothing / target.shape[1]
        loss = label_loss(logits.float(), smooth, self._offset, config, keras.ops)
        if self.feed.has_answers:
            # There is no offset: the teachers' answers are adjusted already.
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
    """Return a function that does one training step.

    On a GPU it replays a CUDA graph of ``step``; on a CPU it calls ``step`` itself.

    Args:
        step: computes gradients and applies the optimizer.
        optimizer: its gradients are cleared before each step.
        device: "cuda" or "cpu".
    """
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
