"""``capsule-edge compare``: the parity certificate of one model against another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ._evaluation import (
    data_folder,
    evaluation_options,
    progress,
    recordings_option,
    warn_left_out,
    warn_of_overlap,
)
from ._options import json_option
from ._printing import console, echo_json, interval_cell, number, table


@click.command(
    epilog="\b\nExample:\n  capsule-edge compare fp32.onnx int8.onnx --data frames --out certificates"
)
@click.argument("a", metavar="FP32", type=click.Path(path_type=Path))
@click.argument("b", metavar="INT8", type=click.Path(path_type=Path))
@evaluation_options
@recordings_option
@click.option(
    "--out", type=click.Path(path_type=Path), help="Write the certificate there (JSON, Markdown, HTML)."
)
@click.option("--overwrite", is_flag=True, help="Replace the certificate of that name that --out holds.")
@click.option("--backend", default="onnxruntime", show_default=True, help="Inference engine of both.")
@click.option("--int8-backend", help="Inference engine of INT8, where it is another one.")
@json_option
@click.pass_context
def command(
    context: click.Context,
    a: Path,
    b: Path,
    data: Path | None,
    split: str | None,
    recordings: tuple[Path, ...],
    out: Path | None,
    overwrite: bool,
    backend: str,
    int8_backend: str | None,
    threads: int,
    resamples: int,
    seed: int,
    as_json: bool,
) -> None:
    """Certify that INT8 answers as FP32 does, frame by frame and class by class.

    FP32 may be a table of answers (CSV, as 'evaluate --save-predictions' writes it): then the conversion is
    certified, whose one gate is an agreement of 99.9 %. Else the gates are those of shipping: agreement >=
    99 %, macro-F1 loss <= .005, and no class losing more than one point of sensitivity. Exit code 4 when a
    gate fails.
    """
    from capsule_edge.evaluation._extras import require

    require("sklearn")
    from capsule_edge.evaluation._files import check_free
    from capsule_edge.evaluation.datasets import load_dataset
    from capsule_edge.evaluation.parity import (
        certificate_stem,
        compare_models,
        compare_table,
        write_certificate,
    )
    from capsule_edge.runtime.errors import GateError, UsageError
    from capsule_edge.runtime.inference import open_model

    is_table = a.suffix.lower() == ".csv"
    if is_table and recordings:
        raise UsageError(
            "a table of answers has no recordings", hint="leave --recording out, or compare two models"
        )
    second = open_model(b, backend=int8_backend or backend, threads=threads)
    if out is not None:
        stem = certificate_stem(second.path.name, "conversion" if is_table else "shipping")
        check_free(out, f"{stem}.json", overwrite=overwrite)
    first = None if is_table else open_model(a, backend=backend, threads=threads)
    dataset = load_dataset(data_folder(data), split=split)
    with progress("comparing", len(dataset.samples) * (1 if first is None else 2)) as advance:
        if first is None:
            certificate = compare_table(a, second, dataset, resamples=resamples, seed=seed, advance=advance)
        else:
            certificate = compare_models(
                first,
                second,
                dataset,
                recordings=recordings,
                resamples=resamples,
                seed=seed,
                advance=advance,
            )
    warn_left_out(dataset, certificate["data"]["skipped"])
    warn_of_overlap(certificate["data"]["training_overlap"], certificate["data"]["frames"])
    if out is not None:
        for path in write_certificate(certificate, out, overwrite=overwrite):
            click.echo(f"wrote {path}", err=True)
    if as_json:
        echo_json(certificate)
    else:
        _print(certificate)
    if certificate["verdict"] == "fail":
        context.exit(GateError.exit_code)


def _print(certificate: dict[str, Any]) -> None:
    from capsule_edge.evaluation.datasets import describe_overlap

    screen = console()
    data, models = certificate["data"], certificate["models"]
    screen.print(
        f"{models['b']['file']} (B) against {models['a']['file']} (A) on {data['name']}, "
        f"split {data['split'] or 'all'}: {data['frames']:,} frames of {data['videos']} videos"
    )
    gates = table("gate", "value", "limit", "verdict")
    for gate in certificate["gates"]:
        gates.add_row(gate["name"], number(gate["value"], 4), number(gate["limit"], 4), gate["verdict"])
    screen.print(gates)
    classes = table("class", "frames", "sens. A", "B", "B - A", "B - A, 95 %", "spec. A", "B")
    for key, entry in certificate["per_class"].items():
        hit, spared = entry["sensitivity"], entry["specificity"]
        classes.add_row(
            key,
            number(entry["support"]),
            *(number(hit[side]) for side in ("a", "b", "delta")),
            interval_cell(hit["interval"]),
            *(number(spared[side]) for side in ("a", "b")),
        )
    screen.print(classes)
    overall = table("", "A", "B", "B - A", "B - A, 95 %")
    for name in ("accuracy", "macro_f1", "balanced_accuracy", "mean_auc", "ece"):
        figure = certificate[name]
        cells = [number(figure[side], 4) for side in ("a", "b", "delta")]
        overall.add_row(name, *cells, interval_cell(figure["interval"], 4))
    screen.print(overall)
    test = certificate["mcnemar"]
    screen.print(
        f"max |dp| {number(certificate['max_abs_dp'], 4)}, mean {number(certificate['mean_abs_dp'], 5)}; "
        f"only A right {test['only_a_right']}, only B right {test['only_b_right']}, "
        f"McNemar p {number(test['p_value'])}"
    )
    absent = [key for key, entry in certificate["per_class"].items() if not entry["support"]]
    if absent:
        screen.print(f"no frame of {', '.join(absent)}: averages are over the other classes")
    if certificate["bootstrap"]["reason"]:
        screen.print(f"no intervals: {certificate['bootstrap']['reason']}")
    found = certificate["events"]
    if found is not None:
        screen.print(
            f"events in {found['recordings']} recordings: A finds {found['a']}, B {found['b']}, "
            f"both {found['matched']} (IoU {found['iou']}), agreement {number(found['agreement'])}"
        )
    for flip in certificate["flips"][:10]:
        worst = ", ".join(frame["file"] for frame in flip["worst"][:2])
        screen.print(f"{flip['frames']} {flip['from']} became {flip['to']}: {worst}")
    screen.print(describe_overlap(data["training_overlap"], data["frames"]))
    screen.print(f"verdict: {certificate['verdict']}")
