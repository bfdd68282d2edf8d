"""The certificates of an export: what Keras answers is written down as a table, and each INT8 file is held to it.

*Conversion*: the table that the QAT model gave in Keras against the file, agreement >= 99.9 % or there is no export.
*Shipping*: the FP32 file of the same format against the INT8 one, whose gates are the reader's to weigh: a failed one
is written into the file and shown, it does not stop the export.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from capsule_edge.evaluation.classification import Predictions, predict, save_predictions
from capsule_edge.evaluation.datasets import Dataset, describe
from capsule_edge.evaluation.parity import agree_on_events, certify, describe_model, describe_table
from capsule_edge.runtime.errors import GateError
from capsule_edge.runtime.inference import Answer, Backend, ModelSpec

from .runners import Frames

__all__ = ["TABLE", "Certificate", "KerasBackend", "certify_files"]

TABLE = "keras-qat.csv"
Certificate = dict[str, Any]


class KerasBackend:
    """A Keras model, pixels to logits, as the evaluation's ``Backend``; its ``features`` are empty."""

    name = "keras"

    def __init__(self, model: Any, spec: ModelSpec, path: Path) -> None:
        self.spec, self.path, self.sha256 = spec, path, ""
        # The model stays what it is while it answers, so one trace serves all batches.
        self._answer = tf.function(lambda pixels: model(pixels, training=False), reduce_retracing=True)

    def run(self, frames: Frames) -> Answer:
        logits = np.asarray(self._answer((frames.astype(np.float32) - 128) / 128), np.float32)
        scaled = logits.astype(np.float64) / self.spec.temperature
        powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        probabilities = np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float32)
        return Answer(probabilities, logits, np.empty((len(frames), 0, 0, logits.shape[1]), np.float32))

    def close(self) -> None:
        return None


def certify_files(
    keras: KerasBackend,
    files: Mapping[str, Backend],
    twins: Mapping[str, str],
    dataset: Dataset,
    table: Path,
    *,
    recordings: Sequence[Path] = (),
    progress: Callable[[str], None] = lambda _: None,
) -> dict[str, tuple[Certificate, Certificate]]:
    """The conversion and the shipping certificate of each INT8 file; ``table`` is written.

    ``files`` are all files by name, ``twins`` gives the name of the FP32 file for that of each INT8 one. The shipping
    certificate compares the events found in ``recordings`` too. Raises ``GateError`` when a file does not answer as
    Keras does.
    """
    progress(f"Keras answers {len(dataset.samples):,} frames")
    said = predict(keras, dataset)
    save_predictions(said, table)
    data, reference, specs = describe(dataset), describe_table(table), (keras.spec,)
    answers: dict[str, Predictions] = {}
    certificates = {}
    for name, twin in twins.items():
        for each in (name, twin):
            if each not in answers:
                progress(f"{each} answers them")
                answers[each] = predict(files[each], dataset)
        second = describe_model(files[name])
        conversion = certify(
            said,
            answers[name],
            kind="conversion",
            models={"a": reference, "b": second},
            data=data,
            specs=specs,
        )
        if conversion["verdict"] == "fail":
            raise GateError(
                f"{name} gives Keras's label on {conversion['agreement']:.3%} of {len(said):,} frames,"
                f" allowed is {conversion['gates'][0]['limit']:.1%} or more",
                hint=_where(conversion),
            )
        events = None
        if recordings:
            progress(f"{twin} and {name} read {len(recordings)} recordings")
            events = agree_on_events(files[twin], files[name], recordings)
        models = {"a": describe_model(files[twin]), "b": second}
        shipping = certify(
            answers[twin],
            answers[name],
            kind="shipping",
            models=models,
            data=data,
            specs=specs,
            events=events,
        )
        certificates[name] = conversion, shipping
    return certificates


def _where(certificate: Certificate) -> str:
    flip = certificate["flips"][0]
    return f"most often {flip['from']} became {flip['to']}, as in {flip['worst'][0]['file']}"
