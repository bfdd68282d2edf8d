"""The ``ModelSpec`` of a trained model: labels, temperature, operating points and provenance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from capsule_edge.evaluation.classification import (
    READER_SPECIFICITY,
    READER_THRESHOLD,
    fit_temperature,
    operating_points,
)
from capsule_edge.evaluation.datasets import Dataset, hash_dataset, training_provenance
from capsule_edge.evaluation.recordings import LabelledRecordings
from capsule_edge.runtime.inference import (
    EventParameters,
    HeldOutBy,
    ModelSpec,
    OperatingPoint,
)

from .config import TrainConfig
from .data import named_videos, with_recorded
from .run_inputs import OwnerStatement, describe_recordings

__all__ = ["describe_model"]


def describe_model(
    statement: OwnerStatement,
    config: TrainConfig,
    dataset: Dataset,
    *,
    held_out: HeldOutBy,
    logits: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int64],
    unreadable: int,
    teachers: Sequence[ModelSpec],
    recordings: LabelledRecordings | None = None,
) -> ModelSpec:
    """Return the ``ModelSpec`` of a trained FP32 model.

    Args:
        statement: what the owner says of the model.
        config: the training configuration.
        dataset: the images that the model was trained on.
        held_out: the unit by which frames were held out to calibrate the model.
        logits: answers to frames that the answering model had not seen, float32 (N, labels).
        labels: the true label of each of these frames, int (N,).
        unreadable: number of images and recorded frames that could not be read.
        teachers: the specs of exported models that the model was distilled from.
        recordings: the recordings that it was trained on too; None without any.
    """
    whole = with_recorded(dataset, recordings)
    temperature = fit_temperature(logits, labels)
    return ModelSpec(
        name=statement.name,
        version=statement.version,
        precision="fp32",
        labels=dataset.classes,
        input=config.input,
        temperature=temperature,
        operating_points=_operating_points(dataset, logits, labels, temperature, held_out),
        events=EventParameters(),
        license=statement.license,
        intended_use=statement.intended_use,
        held_out=held_out,
        provenance={
            "data": dataset.root.name,
            "data_license": statement.data_license,
            "data_sha256": hash_dataset(dataset) if dataset.samples or not recordings else recordings.sha256,
            "split": dataset.split,
            "frames": len(whole.samples) - unreadable,
            "unreadable": unreadable,
            "videos": len(named_videos(whole)) or None,
            **training_provenance(whole.samples, teachers),
            **({"recordings": describe_recordings(recordings)} if recordings else {}),
            "phantom_frames": config.phantom,
            "transplants": config.transplants,
            "training": config.to_dict(),
        },
    )


def _operating_points(
    dataset: Dataset,
    logits: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int64],
    temperature: float,
    held_out: HeldOutBy,
) -> dict[str, OperatingPoint]:
    """Return the operating points of all labels but ``normal``, from calibrated probabilities."""
    scaled = np.exp((logits - logits.max(axis=1, keepdims=True)) / temperature)
    return operating_points(
        scaled / scaled.sum(axis=1, keepdims=True), labels, dataset.labels,
        only=[label.key for label in dataset.classes if label.role != "normal"],
        min_specificity=READER_SPECIFICITY, min_threshold=READER_THRESHOLD,
        measured_on=_measured_on(dataset, len(labels), held_out),
    )  # fmt: skip


def _measured_on(dataset: Dataset, frames: int, held_out: HeldOutBy) -> str:
    """Name the held-out frames, and claim unseen videos only where every training frame names its video."""
    split = f"{dataset.split} " if dataset.split else ""
    if held_out.by == "video":
        return f"{frames} frames of {split}videos that the answering model had not seen"
    if held_out.by == "frame":
        return f"{frames} {split}frames held out one by one, patients unknown"
    return (
        f"{frames} {split}frames of held-out videos, patients unknown (some frames trained on name no video)"
    )
