"""One frozen record of everything that shapes a training run; saved with it, and enough to repeat it."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from capsule_edge.runtime.errors import InputError, UsageError

__all__ = ["TrainConfig"]

_KINDS: dict[str, type] = {"int": int, "float": float, "bool": bool, "str": str}
_SAID = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
_SHARES = (
    "sampling", "video_sampling", "prior", "label_smoothing", "ema", "distillation", "debris", "compression",
    "recolour",
)  # fmt: skip
_LIMITS: tuple[tuple[tuple[str, ...], Callable[[float], bool], str], ...] = (
    (("size", "epochs", "batch", "learning_rate", "qat_learning_rate", "qat_batch"),
     lambda value: value > 0, "a number above 0"),
    (("warmup_epochs", "weight_decay", "adjustment", "augmentation", "focal", "mixup", "closeness", "patience",
      "phantom", "transplants", "views", "seed", "qat_epochs"),
     lambda value: value >= 0, "0 or more"),
    (_SHARES, lambda value: 0 <= value <= 1, "0 to 1"),
)  # fmt: skip


@dataclass(frozen=True)
class TrainConfig:
    """``sampling`` 0 draws frames as they come, 1 draws every class equally often, .5 by the root of its size;
    ``video_sampling`` does the same among the videos of a class.

    ``adjustment`` is the tau of logit adjustment (Menon et al., ICLR 2021) against the distribution that is drawn,
    ``prior`` the share of the data's own class prior that is given back at the end, folded into the last bias.
    ``distillation`` is the share of the loss that teachers have, where there are any, ``closeness`` the weight of the
    distance between the logits of the float and the integer form (``gpu_qat``). ``phantom`` is the number of rendered
    frames added, ``transplants`` that of frames with a lesion set in or taken out (``transplants``). With ``views``
    above 0 the draws of as many epochs are gone through again and again, and teachers answer each of them once
    (``gpu_feed``). With ``qat_epochs`` 0 the INT8 twin keeps the FP32 weights, rounded; ``equalise`` evens channels
    and rounds the FP32 weights themselves before (``equalise``).

    ``augmentation``, ``debris`` and ``compression`` are strengths and ``recolour`` a share (``augment.draw``).
    ``focal`` is the gamma of the focal loss, 0 for cross-entropy; ``mixup`` the alpha of mixup's beta distribution, 0
    for none. With a ``patience`` above 0 a fit ends when macro-F1 on held-out videos has not risen for as many epochs,
    with the best epoch's weights.
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
    recolour: float = 0.0
    focal: float = 0.0
    ema: float = 0.995
    patience: int = 0
    distillation: float = 0.5
    mixup: float = 0.0
    closeness: float = 1.0
    phantom: int = 1200
    transplants: int = 0
    views: int = 0
    seed: int = 20261123
    qat_epochs: int = 1
    qat_learning_rate: float = 3e-5
    qat_batch: int = 32
    saturation_safe: bool = True
    equalise: bool = False

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value, wanted = getattr(self, field.name), _KINDS[str(field.type)]
            # A bool is an int to Python, and an int a number to everyone.
            fits = isinstance(value, wanted) and isinstance(value, bool) == (wanted is bool)
            if not fits and not (wanted is float and type(value) is int):
                raise UsageError(f"{field.name} is {value!r}, allowed is {_SAID[wanted]}")
        for names, fits_range, allowed in _LIMITS:
            for name in names:
                value = getattr(self, name)
                if not (math.isfinite(value) and fits_range(value)):
                    raise UsageError(f"{name} is {value}, allowed is {allowed}")

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

    def drawing(self) -> dict[str, Any]:
        """What the draws of a fit depend on, beside the frames' own size."""
        names = (
            "batch",
            "sampling",
            "video_sampling",
            "augmentation",
            "debris",
            "compression",
            "recolour",
            "mixup",
            "phantom",
            "transplants",
        )
        return {name: getattr(self, name) for name in (*names, "views", "seed")}

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def read(cls, path: Path) -> TrainConfig:
        """The configuration in a JSON file. Raises ``InputError`` for a file or a field that does not fit."""
        try:
            return cls.of(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, UsageError) as error:
            raise InputError(f"{path} holds no training configuration: {error}") from None

    @classmethod
    def of(cls, fields: Any) -> TrainConfig:
        """The defaults but for ``fields``. Raises ``UsageError`` that names a field that is not known."""
        known = [field.name for field in dataclasses.fields(cls)]
        if not isinstance(fields, dict) or (odd := [name for name in fields if name not in known]):
            what = (
                f"the field {odd[0]!r} is not known" if isinstance(fields, dict) else "that is no JSON object"
            )
            raise UsageError(f"{what}, allowed are {', '.join(known)}")
        return cls(**fields)

    def override(self, assignments: Sequence[str]) -> TrainConfig:
        """This configuration with ``FIELD=VALUE`` in place of its own. Raises ``UsageError`` for what does not fit."""
        fields = self.to_dict()
        for text in assignments:
            name, equals, value = text.partition("=")
            if not equals:
                raise UsageError(f"{text!r} sets nothing, allowed is FIELD=VALUE", hint="such as batch=32")
            fields[name] = value if isinstance(fields.get(name), str) else _parse(value)
        return self.of(fields)


def _parse(value: str) -> Any:
    """A number, true or false as JSON has them, also ``.5``; what is neither stays a text, and is refused by name."""
    for read in (json.loads, float):
        try:
            return read(value)
        except ValueError:
            continue
    return value
