"""Certify a model against another model, or against a saved table of answers, on one data set."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from capsule_edge.runtime.errors import InputError
from capsule_edge.runtime.inference import Backend
from capsule_edge.runtime.reader import Reader

from ..classification import check_labels, load_predictions, predict
from ..datasets import Dataset, describe
from ..recordings import Span, event_agreement, spans
from .certification import certify

__all__ = ["agree_on_events", "compare_models", "compare_table", "describe_model", "describe_table"]


def compare_models(
    a: Backend,
    b: Backend,
    dataset: Dataset,
    *,
    recordings: Sequence[Path] = (),
    resamples: int = 1000,
    seed: int = 0,
    advance: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Make the shipping certificate of model B against model A.

    Args:
        a: The FP32 model.
        b: The INT8 model.
        dataset: The labelled frames.
        recordings: Recordings on which the events of the two are compared too.
        resamples: The number of bootstrap resamples.
        seed: The seed of the bootstrap.
        advance: Called with 1 after each frame of each model.

    Raises:
        InputError: The models differ in labels or preprocessing, lack a label of the data set, or a recording cannot
            be read.
    """
    if a.spec.keys != b.spec.keys:
        raise InputError(
            f"the labels differ: A has {', '.join(a.spec.keys)}; B has {', '.join(b.spec.keys)}",
            hint="compare models of the same labels in the same order",
        )
    ours, theirs = (dataclasses.asdict(model.spec.input) for model in (a, b))
    different = [name for name in ours if ours[name] != theirs[name]]
    if different:
        raise InputError(
            "the preprocessing differs: "
            + ", ".join(f"{name} is {ours[name]} in A and {theirs[name]} in B" for name in different),
            hint="compare models with the same preprocessing",
        )
    return certify(
        predict(a, dataset, advance=advance),
        predict(b, dataset, advance=advance),
        kind="shipping",
        models={"a": describe_model(a), "b": describe_model(b)},
        data=describe(dataset),
        specs=(a.spec, b.spec),
        events=agree_on_events(a, b, recordings) if recordings else None,
        resamples=resamples,
        seed=seed,
    )


def compare_table(
    table: Path,
    b: Backend,
    dataset: Dataset,
    *,
    resamples: int = 1000,
    seed: int = 0,
    advance: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Make the conversion certificate of model B against a saved table of answers, on the frames of the table.

    Args:
        table: A table that ``save_predictions`` wrote.
        b: The exported model.
        dataset: The data set that the table was made on.
        resamples: The number of bootstrap resamples.
        seed: The seed of the bootstrap.
        advance: Called with 1 after each frame.

    Raises:
        InputError: The data set lacks a frame of the table, or gives it another label or video.
    """
    expected = load_predictions(table)
    check_labels(dataset, b.spec.keys)
    at = {dataset.name_of(sample): i for i, sample in enumerate(dataset.samples)}
    missing = [file for file in expected.files if file not in at]
    if missing:
        raise InputError(
            f"{len(missing)} of {len(expected)} frames of {table} are not in {dataset.root}: {missing[0]}",
            hint="give the data set and --split that the table was made on",
        )
    dataset = dataset.take(at[file] for file in expected.files)
    return certify(
        expected,
        predict(b, dataset, advance=advance),
        kind="conversion",
        models={"a": describe_table(table), "b": describe_model(b)},
        data=describe(dataset),
        specs=(b.spec,),
        resamples=resamples,
        seed=seed,
    )


def describe_model(model: Backend) -> Mapping[str, Any]:
    """Identify a model in a report: ``file, name, version, precision, sha256, backend``."""
    spec = model.spec
    return {
        "file": model.path.name,
        "name": spec.name,
        "version": spec.version,
        "precision": spec.precision,
        "sha256": model.sha256,
        "backend": model.name,
    }


def describe_table(table: Path) -> Mapping[str, Any]:
    """Identify a saved table of answers in a report, as ``describe_model``; it has no version, precision or engine."""
    return {
        "file": table.name,
        "name": "reference table",
        "version": None,
        "precision": None,
        "sha256": hashlib.sha256(table.read_bytes()).hexdigest(),
        "backend": None,
    }


def agree_on_events(a: Backend, b: Backend, recordings: Sequence[Path]) -> dict[str, Any]:
    """Read recordings with both models and compare the events that they find (``event_agreement``).

    Raises:
        InputError: A recording cannot be read.
    """
    found: list[list[Span]] = []
    for model in (a, b):
        with Reader.open(model.path, backend=model.name) as reader:
            found.append(
                [
                    span
                    for number, path in enumerate(recordings)
                    # The number distinguishes two recordings with the same name.
                    for span in spans(reader.read(path).events, f"{number}:{path.name}")
                ]
            )
    return {**event_agreement(*found), "recordings": len(recordings)}
