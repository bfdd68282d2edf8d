"""``archive drift``: compare an archive with a reference by site and month, and print or write the alarms."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ._printing import console, echo_json, number, table

if TYPE_CHECKING:
    from capsule_edge.archive.drift import RecordingMeasures, ReferenceMeasure
    from capsule_edge.runtime.inference import ModelSpec

__all__ = ["ArchiveDriftOptions", "show_drift"]

# Recordings that are named for people.
_NAMED = 10


@dataclass(frozen=True, kw_only=True)
class ArchiveDriftOptions:
    """The options of ``archive drift``, as click parsed them."""

    reference: Path | None
    model: Path | None
    inputs: bool
    workers: int
    seed: int
    out: Path | None
    as_json: bool


@dataclass(frozen=True)
class _OpenedModel:
    """A model file that is at hand."""

    path: Path
    sha256: str
    spec: ModelSpec


def show_drift(folder: Path, options: ArchiveDriftOptions) -> int:
    """Compare an archive with a reference, print the alarms, and return the exit code."""
    from capsule_edge.archive.drift import DriftOptions, check_drift, reference_of_archive, reference_of_model
    from capsule_edge.runtime.errors import GateError, UsageError

    if options.reference is not None and options.reference.resolve() == folder.resolve():
        raise UsageError(
            f"the reference {options.reference} is the archive itself", hint="name another archive"
        )
    chosen = None if options.model is None else _open_model(options.model)
    recordings, model = _measure(folder, chosen, options)
    reference: Mapping[str, ReferenceMeasure]
    if options.reference is None:
        reference = reference_of_model(model.spec)
        origin = {"kind": "model", "name": f"{model.spec.name} {model.spec.version}", "sha256": model.sha256}
    else:
        others, _ = _measure(options.reference, model, options)
        reference = reference_of_archive(others)
        origin = {"kind": "archive", "name": str(options.reference), "sha256": model.sha256}
    document = check_drift(recordings, reference, origin=origin, options=DriftOptions(seed=options.seed))
    if options.out is not None:
        from capsule_edge.runtime.results import write_whole

        text = json.dumps(document, ensure_ascii=False, indent=1, allow_nan=False) + "\n"
        write_whole(options.out, text.encode("utf-8", "replace"))
        click.echo(f"wrote {options.out}", err=True)
    if options.as_json:
        echo_json(document)
    else:
        _print(document)
    return GateError.exit_code if document["alarm"] else 0


def _measure(
    folder: Path, model: _OpenedModel | None, options: ArchiveDriftOptions
) -> tuple[list[RecordingMeasures], _OpenedModel]:
    """Return the measures of the recordings of an archive, and the model that read them."""
    from capsule_edge.archive.drift import SampleSetup, load_measures, sample_archive, sample_inputs
    from capsule_edge.archive.engines import ProcessEngine, TaskLimits

    measures = load_measures(str(folder), model_sha256=None if model is None else model.sha256)
    if measures.missing:
        click.echo(f"warning: {number(measures.missing)} results of {folder} are in no table", err=True)
    model = model or _find_installed(measures.model_sha256)
    if options.inputs:
        setup = SampleSetup(folder.absolute(), str(model.path))
        samples, faults = sample_archive(
            setup.out,
            measures.tasks,
            lambda: ProcessEngine(
                sample_inputs, setup, workers=options.workers, limits=TaskLimits(seconds=600.0)
            ),
        )
        for key, sample in samples.items():
            measures.recordings[key].add_sample(sample)
        for fault in faults[:_NAMED]:
            click.echo(" ".join(f"warning: frames are not measured: {fault}".split()), err=True)
        if len(faults) > _NAMED:
            click.echo(f"warning: and those of {number(len(faults) - _NAMED)} more recordings", err=True)
    return list(measures.recordings.values()), model


def _open_model(path: Path) -> _OpenedModel:
    from capsule_edge.runtime.inference import find_format, find_model, open_model, readers_of

    found = find_model(path)
    backend = open_model(found, backend=readers_of(find_format(found))[0], threads=1)
    try:
        return _OpenedModel(found.absolute(), backend.sha256, backend.spec)
    finally:
        backend.close()


def _find_installed(sha256: str) -> _OpenedModel:
    """Return the installed model with this hash.

    Raises:
        UsageError: none has it.
    """
    from capsule_edge.archive.compare import find_model_files
    from capsule_edge.runtime.errors import UsageError

    path = find_model_files(()).get(sha256)
    if path is None:
        raise UsageError(
            f"the model {sha256[:12]} that read the archive is not installed",
            hint="name its file with --model",
        )
    return _open_model(path)


def _print(document: Mapping[str, Any]) -> None:
    show = console().print
    reference = document["reference"]
    show(
        f"{number(document['recordings'])} recordings in {number(len(document['groups']))} groups of site and month "
        f"against the {reference['kind']} {reference['name']}: {number(document['tests'])} tests"
    )
    rows = table("site, month", "measure", "recordings", "index", "adjusted p", "", numbers=False)
    unsaid = 0
    for group in document["groups"]:
        where = f"{group['site'] or '-'}, {group['month'] or '-'}"
        for entry in group["measures"]:
            if entry["p_value"] is None:
                unsaid += 1
                continue
            rows.add_row(
                where,
                entry["measure"].replace("_", " "),
                number(entry["units"]),
                number(entry["index"]),
                number(entry["p_adjusted"], 4),
                "ALARM" if entry["alarm"] else "",
            )
    show(rows)
    if unsaid:
        least = document["rule"]["min_units"]
        show(
            f"nothing is said of {number(unsaid)} measures of groups: the reference lacks them, or there are fewer "
            f"than {least} recordings (--json gives the reason of each)"
        )
    for alarm in document["alarms"]:
        show(f"alarm: {alarm['message']}")
    if not document["alarms"]:
        show("no alarm")
