"""Training from Python: your own network, loss and callbacks, and the RUN folder that ``export`` takes."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capsule_edge.runtime.errors import UsageError

from .config import TrainConfig
from .run_inputs import OwnerStatement

if TYPE_CHECKING:
    from capsule_edge.evaluation.datasets import Dataset

__all__ = ["FittedRun", "fit"]

# The schedule of the learning rate is the configuration's, and the optimiser is no Keras one.
_RATE_CALLBACKS = ("LearningRateScheduler", "ReduceLROnPlateau")


@dataclass(frozen=True)
class FittedRun:
    """A finished RUN folder.

    Attributes:
        folder: for ``capsule-edge export`` and ``export.bundle.export_run``.
        weak: the reasons not to export the model; empty for a sound one.
    """

    folder: Path
    weak: tuple[str, ...]


def fit(
    data: str | os.PathLike[str] | Dataset,
    out: str | os.PathLike[str],
    *,
    model: Any = None,
    loss: Callable[[Any, Any], Any] | None = None,
    callbacks: Sequence[Any] = (),
    config: TrainConfig | Mapping[str, Any] | str | os.PathLike[str] | None = None,
    split: str | None = None,
    label_map: str | os.PathLike[str] | None = None,
    statement: OwnerStatement | None = None,
    **options: Any,
) -> FittedRun:
    """Train as ``capsule-edge train`` does, with parts of your own. A run that was stopped goes on.

    FP32 training on the labels comes first, then calibration on videos that were held out, then QAT. Loss and callbacks
    are those of FP32 training; QAT learns the answers of the FP32 model.

    Args:
        data: folder of a data set, or a ``Dataset``.
        out: the RUN folder.
        model: name of an architecture; ``"module:function"``; a function from (size, labels) to a functional tf_keras
            model; or such a model, which starts from its own weights. It maps pixels, float32 RGB (N, size, size, 3)
            scaled to [-1, 127/128], to logits, and ends in ``GlobalAveragePooling2D()`` and
            ``Dense(labels, name="logits")``. None takes ``config.architecture``.
        loss: called with targets and adjusted logits, float32 (n, labels) each, such as
            ``tf_keras.losses.CategoricalCrossentropy(from_logits=True)``. Its mean is taken. The targets are smoothed
            and mixed as the configuration says; ``config.adjustment`` of 0 leaves the logits as they are.
        callbacks: tf_keras callbacks. They see the weights of the current step, not their moving average, and may set
            ``model.stop_training``.
        config: a ``TrainConfig``, its fields by name, or a JSON or YAML file with them.
        split: split of the data to train on; None for ``train``, or for all where there are no splits.
        label_map: file that maps labels and states their roles.
        statement: what the owner says of the model.
        options: further arguments of ``run.train_run``, such as ``leak_patients``, ``recordings`` or ``note``.

    Raises:
        UsageError, InputError, OutputError: as ``run.train_run``; ``UsageError`` also where the network does not fit, a
            layer cannot be quantised (it is named), or a callback sets the learning rate.
        PackageError: TensorFlow or another package of ``[train]`` is missing.

    Example:
        run = fit("frames", "runs/own", model=build, loss=my_loss, config={"epochs": 4, "size": 128})
    """
    from capsule_edge.evaluation._extras import TRAINING, require

    from .tensorflow_log import import_quietly

    require(*TRAINING, "sklearn", extra="train", what="training")
    import_quietly()
    _check_callbacks(callbacks)
    dataset = _load(data, split, label_map)
    chosen, network, start = _take_network(model, _configure(config), len(dataset.labels))
    from .run import OwnParts, train_run

    weak = train_run(
        dataset,
        Path(out),
        chosen,
        statement=statement,
        network=network,
        own=OwnParts(start, loss, tuple(callbacks)),
        **options,
    )
    return FittedRun(Path(out), weak)


def _check_callbacks(callbacks: Sequence[Any]) -> None:
    import tf_keras

    for callback in callbacks:
        kind = type(callback)
        if not isinstance(callback, tf_keras.callbacks.Callback):
            raise UsageError(
                f"a callback is a {kind.__module__}.{kind.__name__}, needed is a tf_keras callback",
                hint="derive it from tf_keras.callbacks.Callback",
            )
        if kind.__name__ in _RATE_CALLBACKS:
            raise UsageError(
                f"the callback {kind.__name__} sets the learning rate, which the configuration sets",
                hint="use its fields learning_rate, warmup_epochs and epochs",
            )


def _load(
    data: str | os.PathLike[str] | Dataset, split: str | None, label_map: str | os.PathLike[str] | None
) -> Dataset:
    from capsule_edge.evaluation.datasets import check_roles, load_training

    if isinstance(data, (str, os.PathLike)):
        data = load_training(Path(data), split=split, label_map=Path(label_map) if label_map else None)
    elif split is not None or label_map is not None:
        raise UsageError(
            "split and label_map are given with a Dataset, which has its own", hint="name a folder instead"
        )
    check_roles(data.classes, data.stated_roles)
    return data


def _configure(config: TrainConfig | Mapping[str, Any] | str | os.PathLike[str] | None) -> TrainConfig:
    if config is None:
        return TrainConfig()
    if isinstance(config, TrainConfig):
        return config
    return TrainConfig.of(dict(config)) if isinstance(config, Mapping) else TrainConfig.read(Path(config))


def _take_network(
    model: Any, config: TrainConfig, labels: int
) -> tuple[TrainConfig, str | None, dict[str, Any] | None]:
    """Return the configuration, and of a network of the user's own its JSON and the weights that it starts from."""
    from .models import collect, describe_network, qualified_name

    if model is None:
        return config, None, None
    if isinstance(model, str):
        return dataclasses.replace(config, architecture=model), None, None
    network = describe_network(model, size=config.size, labels=labels)
    start = collect(model) if hasattr(model, "weights") else None
    # Parts that only the run can name stand in angle brackets: no function is found under that name.
    named = dataclasses.replace(config, architecture=f"<{qualified_name(model)}>")
    return named, network, start
