"""Make the certificates of an export's INT8 files on labelled frames.

Each INT8 file gets two:

- *conversion*: the file against the Keras QAT model, whose predictions are saved as a table. They must agree on
  at least 99.9 % of the frames, or the export fails.
- *shipping*: the INT8 file against the FP32 file of the same format. The reader weighs its gates: a failed gate is
  written into the certificate and shown, and does not stop the export.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from capsule_edge.evaluation.classification import Predictions, predict, save_predictions
from capsule_edge.evaluation.datasets import Dataset, describe
from capsule_edge.evaluation.parity import agree_on_events, certify, describe_model, describe_table
from capsule_edge.runtime.errors import GateError
from capsule_edge.runtime.inference import Answer, Backend, ModelSpec

from .contract import FrameArray, scale_pixels

__all__ = ["TABLE", "KerasBackend", "certify_files"]

TABLE = "keras-qat.csv"


class KerasBackend:
    """A Keras model as a ``Backend`` of the runtime, so that evaluation can run it. Its ``features`` are empty.

    Args:
        model: A Keras model, FP32 or QAT. It must not change while the backend is in use.
        spec: The model's ModelSpec; probabilities are calibrated with its temperature.
        path: The name under which reports list the model.
    """

    name = "keras"

    def __init__(self, model: Any, spec: ModelSpec, path: Path) -> None:
        self.spec, self.path, self.sha256 = spec, path, ""
        # The model does not change, so one trace serves all batches.
        self._logits = tf.function(lambda pixels: model(pixels, training=False), reduce_retracing=True)

    def run(self, frames: FrameArray) -> Answer:
        """Classify uint8 frames (N, size, size, 3)."""
        logits = np.asarray(self._logits(scale_pixels(frames)), np.float32)
        scaled = logits.astype(np.float64) / self.spec.temperature
        powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        probabilities = np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float32)
        return Answer(probabilities, logits, np.empty((len(frames), 0, 0, logits.shape[1]), np.float32))

    def close(self) -> None:
        """Do nothing: a Keras model holds no file open."""


def certify_files(
    keras: KerasBackend,
    files: Mapping[str, Backend],
    twins: Mapping[str, str],
    dataset: Dataset,
    table: Path,
    *,
    recordings: Sequence[Path] = (),
    progress: Callable[[str], None] = lambda _: None,
) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """Make both certificates of each INT8 file and write the table of Keras's predictions.

    Args:
        keras: The QAT model.
        files: All exported files, opened, by name.
        twins: The name of each INT8 file, and of the FP32 file of the same format.
        dataset: Labelled frames.
        table: Where to write the predictions of ``keras`` (CSV).
        recordings: Recordings on which the shipping certificate compares the events found.
        progress: Called with each line of progress.

    Returns:
        The conversion and the shipping certificate by the name of the INT8 file.

    Raises:
        GateError: An INT8 file fails its conversion certificate.
    """
    progress(f"classifying {len(dataset.samples):,} frames with the QAT model in Keras")
    expected = predict(keras, dataset)
    save_predictions(expected, table)
    data, specs = describe(dataset), (keras.spec,)

    @cache
    def predictions(name: str) -> Predictions:
        progress(f"classifying the same frames with {name}")
        return predict(files[name], dataset)

    certificates = {}
    for name, twin in twins.items():
        given, fp32 = predictions(name), predictions(twin)
        models = {"a": describe_table(table), "b": describe_model(files[name])}
        conversion = certify(expected, given, kind="conversion", models=models, data=data, specs=specs)
        _check_conversion(name, conversion)
        events = None
        if recordings:
            progress(f"reading {len(recordings)} recordings with {twin} and {name}")
            events = agree_on_events(files[twin], files[name], recordings)
        models = {"a": describe_model(files[twin]), "b": describe_model(files[name])}
        shipping = certify(fp32, given, kind="shipping", models=models, data=data, specs=specs, events=events)
        certificates[name] = conversion, shipping
    return certificates


def _check_conversion(name: str, certificate: Mapping[str, Any]) -> None:
    """Raise ``GateError`` if the conversion certificate of the file ``name`` has the verdict ``fail``."""
    if certificate["verdict"] != "fail":
        return
    flip = certificate["flips"][0]
    raise GateError(
        f"{name} gives the label of the Keras QAT model on {certificate['agreement']:.3%} of"
        f" {certificate['data']['frames']:,} frames, allowed is {certificate['gates'][0]['limit']:.1%} or more",
        hint=f"most often {flip['from']} became {flip['to']}, for example in {flip['worst'][0]['file']}",
    )
