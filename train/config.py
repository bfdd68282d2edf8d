"""One frozen record of everything that shapes a training run; saved with it, and enough to repeat it."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from capsule_edge.runtime.errors import InputError, UsageError

__all__ = ["TrainConfig"]


@dataclass(frozen=True)
class TrainConfig:
    """``sampling`` 0 draws frames as they come, 1 draws every class equally often, .5 by the root of its size;
    ``video_sampling`` does the same among the videos of a class.

    ``adjustment`` is the tau of logit adjustment (Menon et al., ICLR 2021) against the distribution that is drawn,
    ``prior`` the share of the data's own class prior that is given back at the end, folded into the last bias.
    ``distillation`` is the share of the loss that teachers have, where there are any, and ``phantom`` the number of
    rendered frames added.

    ``augmentation``, ``debris`` and ``compression`` are strengths (``augment.draw``).
    """

    architecture: str = "mobilenet_v2"
    size: int = 160
    epochs: int = 8
    batch: int = 64
    learning_rate: float = 5e-4
    warmup_epochs: float = 0.5
    weight_decay: float = 1e-4
    label_smoothing: float = 0.05
    sampling: float = 0.5
    video_sampling: float = 0.5
    adjustment: float = 1.0
    prior: float = 0.0
    augmentation: float = 1.0
    debris: float = 0.0
    compression: float = 0.0
    ema: float = 0.995
    distillation: float = 0.5
    phantom: int = 1200
    seed: int = 20261123
    qat_epochs: int = 1
    qat_learning_rate: float = 3e-5
    qat_batch: int = 32
    saturation_safe: bool = True

    def __post_init__(self) -> None:
        for name in ("epochs", "batch", "learning_rate"):
            if getattr(self, name) <= 0:
                raise UsageError(f"{name} is {getattr(self, name)}, allowed is a number above 0")
        for name in (
            "sampling",
            "video_sampling",
            "prior",
            "label_smoothing",
            "ema",
            "distillation",
            "debris",
            "compression",
        ):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{name} is {getattr(self, name)}, allowed is 0 to 1")

    def rate(self, step: int, steps: int) -> float:
        """Learning rate at ``step`` of ``steps``: linear warm-up, then a cosine to zero."""
        warmup = self.warmup_epochs * steps / self.epochs
        if step < warmup:
            return self.learning_rate * (step + 1) / (warmup + 1)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1.0, steps - warmup)))

    def of_qat(self) -> TrainConfig:
        """The same run's second part: fewer and smaller steps from the FP32 weights."""
        return dataclasses.replace(
            self, epochs=self.qat_epochs, learning_rate=self.qat_learning_rate, batch=self.qat_batch,
            weight_decay=0.0, seed=self.seed + 1,
        )  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def read(cls, path: Path) -> TrainConfig:
        """The configuration in a JSON file. Raises ``InputError`` for a file or a field that does not fit."""
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise InputError(f"{path} holds no training configuration: {error}") from None
