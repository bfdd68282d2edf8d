"""Read and change the spec in a training's ``run.json``, from which ``export`` makes the model files."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from capsule_edge.runtime.errors import InputError, ModelError
from capsule_edge.runtime.inference import ModelSpec

from ._files import write_text

__all__ = ["add_fitted_recordings", "put_records", "read_run_spec", "with_records", "write_run_spec"]


def read_run_spec(folder: Path) -> tuple[dict[str, Any], ModelSpec]:
    """Return a training's ``run.json`` and the spec in it.

    Raises:
        InputError: The folder holds no ``run.json`` with a spec.
    """
    path = folder / "run.json"
    try:
        run: dict[str, Any] = json.loads(path.read_text("utf-8"))
        spec = ModelSpec.from_json(json.dumps({**run["spec"], "precision": "fp32"}))
    except (OSError, ValueError, KeyError, TypeError, ModelError) as error:
        raise InputError(
            f"{path} has no spec of a training: {error}",
            hint="name the folder that 'capsule-edge train' wrote",
        ) from None
    return run, spec


def with_records(spec: ModelSpec, records: Mapping[str, Any]) -> ModelSpec:
    """Return a spec with records of ``capsule-edge/model/2``, checked as in a model file.

    Args:
        spec: A spec of either version.
        records: JSON values by the name of the record, such as ``familiarity``.

    Raises:
        ModelError: The spec with these records is not valid.
    """
    document = spec.to_dict() | dict(records) | {"schema": ModelSpec.schema}
    return ModelSpec.from_json(json.dumps(document))


def add_fitted_recordings(spec: ModelSpec, sha256s: Collection[str]) -> dict[str, Any]:
    """Return the provenance of a spec, with recordings on which its rules were fitted added to those that it lists.

    Args:
        spec: The spec.
        sha256s: SHA-256 of each recording.
    """
    known = {*spec.provenance.get("fitted_recordings", ()), *sha256s}
    return {**spec.provenance, **({"fitted_recordings": sorted(known)} if known else {})}


def put_records(folder: Path, records: Mapping[str, Any]) -> None:
    """Write records of ``capsule-edge/model/2`` into the spec in a training's ``run.json``.

    Args:
        folder: The folder that ``capsule-edge train`` wrote.
        records: JSON values by the name of the record, such as ``familiarity``.

    Raises:
        InputError: The folder holds no ``run.json`` with a spec.
        ModelError: The spec with these records is not valid.
        OutputError: The file cannot be written; it is unchanged.
    """
    _, spec = read_run_spec(folder)
    write_run_spec(folder, with_records(spec, records))


def write_run_spec(folder: Path, spec: ModelSpec) -> None:
    """Write a spec into a training's ``run.json``, all but its precision, which ``export`` states.

    Raises:
        InputError: The folder holds no ``run.json`` with a spec.
        OutputError: The file cannot be written; it is unchanged.
    """
    run, _ = read_run_spec(folder)
    run["spec"] = {key: value for key, value in spec.to_dict().items() if key != "precision"}
    write_text(folder / "run.json", json.dumps(run, indent=1, ensure_ascii=False) + "\n")
