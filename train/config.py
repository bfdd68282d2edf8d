"""The configuration of a training run: one frozen record that is saved with the run and enough to repeat it."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from capsule_edge.runtime.errors import InputError, UsageError
from capsule_edge.runtime.inference import InputSpec

__all__ = ["TrainConfig"]

_TYPES: dict[str, type] = {"int": int, "float": float, "bool": bool, "str": str}
_TYPE_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
_SHARES = (
    "sampling", "video_sampling", "prior", "label_smoothing", "ema", "distillation", "debris", "compression",
    "recolour", "frozen",
)  # fmt: skip
_LIMITS: tuple[tuple[tuple[str, ...], Callable[[float], bool], str], ...] = (
    (("size", "epochs", "batch", "learning_rate", "qat_learning_rate", "qat_batch"),
     lambda value: value > 0, "a number above 0"),
    (("warmup_epochs", "weight_decay", "steps_per_class", "adjustment", "augmentation", "focal", "mixup", "closeness",
      "patience", "hard_weight", "phantom", "transplants", "views", "seed", "qat_epochs"),
     lambda value: value >= 0, "0 or more"),
    (_SHARES, lambda value: 0 <= value <= 1, "0 to 1"),
)  # fmt: skip


@dataclass(frozen=True)
class TrainConfig:
    """All settings that shape a training run.

    Attributes:
        architecture: name of the architecture (``models.architectures``), or ``module:function`` for a network of your
            own (``models.own_network``).
        size: width and height of the frames in pixels.
        epochs: number of epochs of FP32 training.
        batch: frames in a batch, over all workers.
        learning_rate: the peak learning rate.
        warmup_epochs: epochs of linear warm-up.
        weight_decay: weight decay of the kernels (AdamW).
        label_smoothing: share of the target that is spread over all classes, 0..1.
        sampling: how evenly classes are drawn, 0..1. 0 draws frames as they come, 1 draws all classes equally
            often, .5 draws a class by the root of its size.
        video_sampling: the same among the videos of a class, 0..1.
        hard_weight: how much more often than others the normal frames are drawn on which a model raised events
            (``train --weigh``); 1 draws them like others, 0 never.
        adjustment: tau of logit adjustment (Menon et al., ICLR 2021) against the drawn distribution of
            classes.
        prior: share of the data's own class prior that is added to the last bias after training, 0..1.
        augmentation: strength of geometry, exposure and colour (``augment.draw``).
        debris: strength of debris and bubbles, 0..1.
        compression: strength of JPEG artefacts, 0..1.
        recolour: share of frames that take on another frame's colours, 0..1.
        focal: gamma of the focal loss; 0 is cross-entropy.
        ema: decay of the moving average of the weights, 0..1.
        steps_per_class: FP32 training takes at least this many steps for each class that has frames; a small data set
            is drawn more often in each epoch. 0 sets no least number.
        frozen: share of that least number of steps in which a pretrained backbone stays as it is and only the last
            layer learns, 0..1.
        patience: early stopping. Training ends when macro-F1 on held-out videos has not risen for this many
            epochs, with the weights of the best epoch; 0 never stops early.
        distillation: share of the teachers in the loss, 0..1, if there are teachers.
        mixup: alpha of mixup's beta distribution; 0 turns mixup off.
        closeness: weight of the distance between the logits of the float and the integer form
            (``gpu.torch_qat``).
        phantom: number of rendered frames added to the data; the demo's recording needs them, patients do not.
        transplants: number of transplants added to the data (``data.transplants``).
        views: number of epochs whose draws are repeated again and again. Teachers then answer each draw once
            (``gpu.batch_feed``). 0 draws each epoch anew.
        seed: seed of draws and of fresh weights.
        qat_epochs: number of epochs of QAT. With 0 the INT8 twin keeps the FP32 weights, rounded.
        qat_learning_rate: the peak learning rate of QAT.
        qat_batch: frames in a batch of QAT.
        saturation_safe: whether the ranges of weights keep 16-bit sums from saturating on CPUs without VNNI.
        equalise: whether to equalise the channels and round the FP32 weights before QAT
            (``qat.equalisation``).

    Raises:
        UsageError: a value has the wrong type or lies outside its range.

    Example:
        ``TrainConfig(architecture="plain_cnn", epochs=2)``
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
    hard_weight: float = 1.0
    adjustment: float = 1.0
    prior: float = 0.0
    augmentation: float = 1.0
    debris: float = 0.0
    compression: float = 0.0
    recolour: float = 0.0
    focal: float = 0.0
    ema: float = 0.995
    steps_per_class: int = 60
    frozen: float = 0.25
    patience: int = 0
    distillation: float = 0.5
    mixup: float = 0.0
    closeness: float = 1.0
    phantom: int = 0
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
            value, wanted = getattr(self, field.name), _TYPES[str(field.type)]
            # To Python a bool is an int, so compare it separately. Accept an int where a float is wanted.
            fits = isinstance(value, wanted) and isinstance(value, bool) == (wanted is bool)
            if not fits and not (wanted is float and type(value) is int):
                raise UsageError(f"{field.name} is {value!r}, allowed is {_TYPE_NAMES[wanted]}")
        for names, fits_range, allowed in _LIMITS:
            for name in names:
                value = getattr(self, name)
                if not (math.isfinite(value) and fits_range(value)):
                    raise UsageError(f"{name} is {value}, allowed is {allowed}")

    @property
    def input(self) -> InputSpec:
        """The input of the model that this configuration trains."""
        return InputSpec(self.size, preprocessing=2)

    def rate(self, step: int, steps: int) -> float:
        """Return the learning rate at ``step`` of ``steps``: linear warm-up, then a cosine to zero."""
        warmup = self.warmup_epochs * steps / self.epochs
        if step < warmup:
            return self.learning_rate * (step + 1) / (warmup + 1)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1.0, steps - warmup)))

    def of_qat(self) -> TrainConfig:
        """Return the configuration of QAT.

        It has its own epochs, learning rate and batch, no weight decay, and the next seed.
        """
        return dataclasses.replace(
            self, epochs=self.qat_epochs, learning_rate=self.qat_learning_rate, batch=self.qat_batch,
            weight_decay=0.0, steps_per_class=0, seed=self.seed + 1,
        )  # fmt: skip

    def drawing(self) -> dict[str, Any]:
        """Return the settings that determine the draws of a training run, apart from the size of the frames."""
        names = (
            "batch",
            "sampling",
            "video_sampling",
            "hard_weight",
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
        """Return all settings by name."""
        return dataclasses.asdict(self)

    @classmethod
    def read(cls, path: Path) -> TrainConfig:
        """Read a configuration from a JSON file, or from a YAML file (``.yaml``, ``.yml``).

        Raises:
            InputError: the file cannot be read, is no JSON object or YAML mapping, or has an unknown or impossible
                setting.
        """
        try:
            text = path.read_text(encoding="utf-8")
            return cls.of(_read_yaml(text) if path.suffix in (".yaml", ".yml") else json.loads(text))
        except (OSError, ValueError, UsageError) as error:
            raise InputError(f"{path} holds no training configuration: {error}") from None

    @classmethod
    def of(cls, fields: Any) -> TrainConfig:
        """Return the default configuration changed by ``fields``, a dictionary from names to values.

        Raises:
            UsageError: a name is not known, or a value does not fit.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        if not isinstance(fields, dict) or (odd := [name for name in fields if name not in known]):
            what = (
                f"the field {odd[0]!r} is not known"
                if isinstance(fields, dict)
                else "it has no names and values"
            )
            raise UsageError(f"{what}, allowed are {', '.join(known)}")
        return cls(**fields)

    def override(self, assignments: Sequence[str]) -> TrainConfig:
        """Return this configuration with each ``FIELD=VALUE`` of ``assignments`` applied.

        Raises:
            UsageError: an assignment has no "=", its field is not known, or its value does not fit.

        Example:
            ``config.override(["batch=32", "ema=.99"])``
        """
        fields = self.to_dict()
        for text in assignments:
            name, equals, value = text.partition("=")
            if not equals:
                raise UsageError(f"{text!r} sets nothing, allowed is FIELD=VALUE", hint="such as batch=32")
            fields[name] = value if isinstance(fields.get(name), str) else _parse(value)
        return self.of(fields)


def _read_yaml(text: str) -> Any:
    """Return the content of a YAML text; ``ValueError`` in one line where it is none."""
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = "" if mark is None else f" in line {mark.line + 1}"
        raise ValueError(f"it is no YAML{where}: {getattr(error, 'problem', None) or 'unreadable'}") from None


def _parse(value: str) -> Any:
    """Parse a number, true or false as in JSON, or a number such as ``.5``; return any other text unchanged."""
    for read in (json.loads, float):
        try:
            return read(value)
        except ValueError:
            continue
    return value
