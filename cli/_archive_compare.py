"""``archive compare``: compare two models over an archive, write the document and the page, and print the verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ._evaluation import progress
from ._printing import console, echo_json, number, table

if TYPE_CHECKING:
    from capsule_edge.archive.compare import ArchiveComparison, ModelChoice

__all__ = ["CompareArchivesOptions", "show_comparison"]

# Recordings and differences that are named for people; the document has all.
_NAMED = 10


@dataclass(frozen=True, kw_only=True)
class CompareArchivesOptions:
    """The options of ``archive compare``, as click parsed them."""

    models: tuple[str, str] | None
    truth: Path | None
    out: Path | None
    overwrite: bool
    pictures: bool
    gates: str | None
    resamples: int
    seed: int
    as_json: bool


def show_comparison(old: Path, new: Path | None, options: CompareArchivesOptions) -> int:
    """Compare two archives, print what differs, and return the exit code."""
    from capsule_edge.archive.compare import (
        ComparisonOptions,
        check_comparison_folder,
        choose_models,
        compare_archives,
    )
    from capsule_edge.archive.packages import load_package
    from capsule_edge.runtime.errors import GateError

    load_package("pyarrow.parquet", needed_for="archive compare")
    if options.out is not None:
        check_comparison_folder(options.out, overwrite=options.overwrite)
    models = choose_models(options.models or ())
    comparison = compare_archives(
        old,
        new,
        models=models,
        options=ComparisonOptions(
            truth=options.truth,
            kind=options.gates,  # type: ignore[arg-type]
            resamples=options.resamples,
            seed=options.seed,
        ),
    )
    document = comparison.document
    _warn(document)
    if options.out is not None:
        _write(comparison, models, options.out, options)
    if options.as_json:
        echo_json(document)
    else:
        _print(document)
    return GateError.exit_code if document["verdict"] == "fail" else 0


def _write(
    comparison: ArchiveComparison, models: tuple[ModelChoice, ...], out: Path, options: CompareArchivesOptions
) -> None:
    from capsule_edge.archive.compare import illustrate_differences, render_comparison, write_comparison

    differences, pictures = comparison.differences, []
    if options.pictures:
        with progress("drawing", len(differences)) as advance:
            pictures = illustrate_differences(differences, models, advance=advance)
    page = render_comparison(comparison, pictures)
    for path in write_comparison(comparison, page, out, overwrite=options.overwrite):
        click.echo(f"wrote {path}", err=True)


def _warn(document: Mapping[str, Any]) -> None:
    for warning in document["warnings"]:
        click.echo(f"warning: {warning}", err=True)
    missing = document["recordings"]["not_compared"]
    for each in missing[:_NAMED]:
        line = f"warning: {each['recording']} is not compared: {each['cause']}: {each['message']}"
        click.echo(" ".join(line.split()), err=True)
    if len(missing) > _NAMED:
        click.echo(f"warning: and {number(len(missing) - _NAMED)} more are not compared", err=True)
    for each in (document["truth"] or {}).get("left_out", ())[:_NAMED]:
        click.echo(f"warning: the truth of {each['recording']} is left out: {each['message']}", err=True)


def _print(document: Mapping[str, Any]) -> None:
    show = console().print
    models = document["models"]
    names = [
        f"{models[side]['name']} {models[side]['version']} {models[side]['precision'].upper()}"
        for side in ("old", "new")
    ]
    overall = document["overall"]
    show(
        f"{names[1]} (new) against {names[0]} (old): {number(document['recordings']['compared'])} recordings, "
        f"{number(overall['frames'])} frames"
    )
    show(_gate_table(document))
    show(_label_table(document))
    truth = document["truth"]
    if truth is not None:
        _print_truth(truth)
    changed = len(document["differences"])
    show(
        f"{number(changed)} {'difference' if changed == 1 else 'differences'}; --out DIR shows each on a page"
    )
    show(f"verdict: {document['verdict']}")


def _gate_table(document: Mapping[str, Any]) -> Any:
    rows = table("gate", "value", "interval", "allowed", "verdict")
    for gate in document["gates"]:
        rows.add_row(
            gate["name"],
            number(gate["value"]),
            _interval(gate["interval"]),
            f"<= {gate['limit']:.2f}",
            gate["verdict"] if gate["reason"] is None else f"{gate['verdict']}: {gate['reason']}",
        )
    return rows


def _label_table(document: Mapping[str, Any]) -> Any:
    columns = ("old", "new", "same_label", "only_old", "only_new", "relabelled", "moved", "reordered")
    rows = table("suggestions", *(column.replace("_", " ") for column in columns))
    for entry in [*document["by_label"], {"label": "all", **document["overall"]}]:
        rows.add_row(entry["label"], *(number(entry[column]) for column in columns))
    return rows


def _print_truth(truth: Mapping[str, Any]) -> None:
    group, test = truth["unseen"], truth["unseen"]["mcnemar"]
    console().print(
        f"truth: {number(group['recordings'])} recordings that no model is known to be trained on "
        f"({number(truth['trained_on'])} others left out), {number(group['findings'])} findings"
    )
    rows = table("model", "hit", "seen", "false suggestions")
    for side in ("old", "new"):
        rows.add_row(side, *(number(group[side][name]) for name in ("hit", "seen", "false_suggestions")))
    console().print(rows)
    console().print(
        f"hit by the old model alone {test['only_old']}, by the new one alone {test['only_new']}, "
        f"McNemar p {number(test['p_value'])} (findings taken as independent)"
    )


def _interval(value: list[float] | None) -> str:
    return "-" if value is None else f"{value[0]:.3f} .. {value[1]:.3f}"
