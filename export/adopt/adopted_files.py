"""Write the files of an adoption, check each, and certify them on labelled frames."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from capsule_edge.evaluation.classification import Predictions, load_frames, predict, save_predictions
from capsule_edge.evaluation.datasets import Dataset, describe
from capsule_edge.evaluation.parity import (
    certify,
    describe_model,
    describe_table,
    parity_summary,
    with_sha256,
    write_certificate,
)
from capsule_edge.runtime.errors import GateError, InputError, ModelError
from capsule_edge.runtime.inference import Backend, ModelSpec

from ..contract import FrameArray
from ..new_folder import hash_file
from ..runners import open_file
from .facts import Floats, OutputKind
from .float_body import FloatBody
from .judgement import source_logits
from .serving_graph import build_file

__all__ = ["SOURCE_TABLE", "certify_adopted", "certify_conversion", "write_file"]

SOURCE_TABLE = "source.csv"
# Float32 sums over the positions of a map, relative to the largest logit.
_MAP_LIMIT = 1e-4
# Frames that are read at a time.
_GROUP = 32


def write_file(
    path: Path, body: FloatBody, spec: ModelSpec, *, quantised: onnx.ModelProto | None = None
) -> None:
    """Write a model file.

    Raises:
        ModelError: The file does not keep the contract.
    """
    onnx.save(build_file(body, spec, quantised=quantised), path)
    backend = open_file(path)
    size = spec.input.size
    frames = np.random.default_rng(0).integers(0, 256, (2, size, size, 3), dtype=np.uint8)
    answer = backend.run(frames)
    backend.close()
    if answer.features.size:
        # The dense layer reads the mean of the maps in both files, so their means differ by the bias alone.
        rest = answer.logits - answer.features.mean(axis=(1, 2))
        worst = float(np.abs(rest[0] - rest[1]).max())
        limit = _MAP_LIMIT * max(1.0, float(np.abs(answer.logits).max()))
        if worst > limit:
            raise ModelError(
                f"{path.name}: the features' mean differs from logits - bias by {worst:.3g}, allowed is {limit:.3g}"
            )


def certify_adopted(
    fp32: Path,
    int8: Path,
    body: FloatBody,
    levels: FloatBody,
    quantised: onnx.ModelProto,
    answer: Callable[[FrameArray], Floats],
    outputs: OutputKind,
    dataset: Dataset,
    *,
    progress: Callable[[str], None] = lambda _: None,
) -> tuple[list[dict[str, Any]], Predictions]:
    """Write both certificates, and the summary of each into its file.

    The *conversion* certificate compares the FP32 file with the source, whose answers are saved as a table. The
    *shipping* certificate compares INT8 with FP32.

    Args:
        fp32: The FP32 file.
        int8: The INT8 file.
        body: The network of the FP32 file.
        levels: The network of the INT8 file in float.
        quantised: The same in 8 bits.
        answer: Returns the source's outputs for frames (``judgement.source_answers``).
        outputs: The meaning of these outputs.
        dataset: The labelled frames.
        progress: Called with each line of progress.

    Returns:
        The certificates, as JSON-ready documents, and the source's answers.

    Raises:
        GateError: The FP32 file fails its conversion certificate.
    """
    progress(f"certifying on {len(dataset.samples):,} frames")
    first = open_file(fp32)
    a = predict(first, dataset)
    table = fp32.parent / SOURCE_TABLE
    expected = _ask_source(a, answer, outputs, dataset, first.spec)
    save_predictions(expected, table)
    conversion = certify_conversion(first, a, expected, dataset)
    first.close()
    write_file(fp32, body, dataclasses.replace(first.spec, parity=parity_summary(conversion)))
    first, second = open_file(fp32), open_file(int8)
    shipping = certify(
        a, predict(second, dataset), kind="shipping",
        models={"a": describe_model(first), "b": describe_model(second)}, data=describe(dataset), specs=(first.spec,),
    )  # fmt: skip
    first.close()
    second.close()
    write_file(
        int8, levels, dataclasses.replace(second.spec, parity=parity_summary(shipping)), quantised=quantised
    )
    written = [with_sha256(conversion, "b", hash_file(fp32)), with_sha256(shipping, "b", hash_file(int8))]
    for certificate in written:
        write_certificate(certificate, fp32.parent / "certificates")
    return written, expected


def certify_conversion(
    model: Backend, given: Predictions, expected: Predictions, dataset: Dataset
) -> dict[str, Any]:
    """Compare an FP32 file with the source.

    Args:
        model: The file, whose folder holds the table of the source's answers.
        given: The file's answers.
        expected: The source's answers.
        dataset: The labelled frames.

    Returns:
        The conversion certificate, as a JSON-ready document.

    Raises:
        GateError: The file fails it.
    """
    certificate = certify(
        expected, given, kind="conversion",
        models={"a": describe_table(model.path.parent / SOURCE_TABLE), "b": describe_model(model)},
        data=describe(dataset), specs=(model.spec,),
    )  # fmt: skip
    if certificate["verdict"] == "fail":
        raise GateError(
            f"{model.path.name} gives the source's label on {certificate['agreement']:.3%} of"
            f" {certificate['data']['frames']:,} frames, allowed is {certificate['gates'][0]['limit']:.1%} or more"
        )
    return certificate


def _ask_source(
    like: Predictions,
    answer: Callable[[FrameArray], Floats],
    outputs: OutputKind,
    dataset: Dataset,
    spec: ModelSpec,
) -> Predictions:
    """Return the source's answers as calibrated probabilities, on the frames that ``like`` answers for."""
    rows, names = [], []
    for start in range(0, len(dataset.samples), _GROUP):
        group = dataset.take(range(start, min(start + _GROUP, len(dataset.samples))))
        try:
            kept, frames = load_frames(group, spec.input)
        except InputError:  # no frame of the group can be read; ``like`` lacks them too
            continue
        rows.append(answer(frames))
        names += [kept.name_of(sample) for sample in kept.samples]
    assert tuple(names) == like.files  # both read the same frames
    assert like.logits is not None  # ``predict`` keeps them
    logits = source_logits(np.concatenate(rows), outputs, like.logits) / spec.temperature
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    p = (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
    return dataclasses.replace(like, probabilities=p, logits=None)
