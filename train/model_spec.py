"""The ``ModelSpec`` of a trained model: labels, temperature, operating points and provenance."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from capsule_edge.evaluation.classification import fit_temperature, operating_points
from capsule_edge.evaluation.datasets import Dataset, hash_dataset, training_provenance
from capsule_edge.runtime.inference import (
    EventParameters,
    InputSpec,
    ModelSpec,
    OperatingPoint,
)

from .config import TrainConfig

__all__ = ["describe_model"]

# A recording is almost all normal. One false frame in a hundred is as many as a reader bears, and no label is shown
# that the calibrated model does not hold more likely than all others together.
_MIN_SPECIFICITY, _MIN_THRESHOLD = 0.99, 0.5
_LICENSE = "CC-BY-4.0 data (Kvasir-Capsule asks written permission for commercial use); Apache-2.0 code"


def describe_model(
    name: str,
    config: TrainConfig,
    dataset: Dataset,
    *,
    logits: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int64],
    unreadable: int,
    teachers: Sequence[ModelSpec],
) -> ModelSpec:
    """Return the ``ModelSpec`` of a trained FP32 model.

    Args:
        name: name of the model.
        config: the training configuration.
        dataset: the data set that the model was trained on.
        logits: answers to frames that the answering model had not seen, float32 (N, labels).
        labels: the true label of each of these frames, int (N,).
        unreadable: number of images of ``dataset`` that could not be read.
        teachers: the specs of exported models that the model was distilled from.
    """
    temperature = fit_temperature(logits, labels)
    return ModelSpec(
        name=name,
        version=importlib.metadata.version("capsule-edge"),
        precision="fp32",
        labels=dataset.classes,
        input=InputSpec(config.size),
        temperature=temperature,
        operating_points=_operating_points(dataset, logits, labels, temperature),
        events=EventParameters(),
        license=_LICENSE,
        provenance={
            "data": dataset.root.name,
            "data_sha256": hash_dataset(dataset),
            "split": dataset.split,
            "frames": len(dataset.samples) - unreadable,
            "unreadable": unreadable,
            "videos": len({s.video_id for s in dataset.samples}),
            **training_provenance(dataset.samples, teachers),
            "phantom_frames": config.phantom,
            "transplants": config.transplants,
            "training": config.to_dict(),
        },
    )


def _operating_points(
    dataset: Dataset, logits: npt.NDArray[np.float32], labels: npt.NDArray[np.int64], temperature: float
) -> dict[str, OperatingPoint]:
    """Return the operating points of all labels but ``normal``, from calibrated probabilities."""
    scaled = np.exp((logits - logits.max(axis=1, keepdims=True)) / temperature)
    videos = f"{dataset.split} videos" if dataset.split else "videos"
    return operating_points(
        scaled / scaled.sum(axis=1, keepdims=True), labels, dataset.labels,
        only=[label.key for label in dataset.classes if label.role != "normal"],
        min_specificity=_MIN_SPECIFICITY, min_threshold=_MIN_THRESHOLD,
        measured_on=f"{len(labels)} frames of {videos} that the answering model had not seen",
    )  # fmt: skip
