"""``capsule-edge compare``: certify an INT8 model against its FP32 original."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ._evaluation import (
    data_folder,
    evaluation_options,
    progress,
    recordings_option,
    warn_left_out,
    warn_of_overlap,
)
from ._options import HELP_OPTIONS, json_option
from ._printing import console, echo_json, interval_cell, number, table

if TYPE_CHECKING:
    from capsule_edge.runtime.inference import Backend

# Changes of the predicted label that the terminal shows; the certificate has all.
_SHOWN = 10


@dataclass(frozen=True, kw_only=True)
class CompareOptions:
    """The options of ``compare``, as click parsed them."""

    data: Path | None
    split: str | None
    label_map: Path | None
    recordings: tuple[Path, ...]
    out: Path | None
    overwrite: bool
    backend: str
    int8_backend: str | None
    threads: int
    resamples: int
    seed: int


@click.command(
    context_settings=HELP_OPTIONS,
    epilog="\b\nExample:\n  capsule-edge compare fp32.onnx int8.onnx --data frames --out certificates",
)
@click.argument("fp32", metavar="FP32", type=click.Path(path_type=Path))
@click.argument("int8", metavar="INT8", type=click.Path(path_type=Path))
@evaluation_options
@recordings_option
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder for the certificate (JSON, Markdown and HTML)."
)
@click.option("--overwrite", is_flag=True, help="Replace an earlier certificate of the same name in --out.")
@click.option("--backend", default="onnxruntime", show_default=True, help="Inference engine of both models.")
@click.option("--int8-backend", help="Inference engine of the INT8 model.  [default: --backend]")
@json_option
@click.pass_context
def command(context: click.Context, /, fp32: Path, int8: Path, as_json: bool, **given: Any) -> None:
    """Compare the answers of INT8 and FP32 on labelled frames, frame by frame and class by class.

    Each of them is a model file, or the name of an installed model: standard or small.

    The shipping certificate has three limits (gates): both models give at least 99 % of the frames the same
    label, INT8 loses at most .005 of macro-F1, and no class loses more than one percentage point of
    sensitivity.

    FP32 may also be a CSV file of predictions, as "evaluate --save-predictions" writes it. That gives a
    conversion certificate. It has one limit: at least 99.9 % of the frames get the same label.

    The exit code is 4 if a limit is missed.
    """
    from capsule_edge.evaluation._extras import require

    require("sklearn")
    from capsule_edge.evaluation.parity import describe_pair, write_certificate
    from capsule_edge.runtime.errors import GateError

    options = CompareOptions(**given)
    certificate = _certify(fp32, int8, options)
    if remark := describe_pair(certificate):
        click.echo(f"warning: {remark}", err=True)
    if options.out is not None:
        for path in write_certificate(certificate, options.out, overwrite=options.overwrite):
            click.echo(f"wrote {path}", err=True)
    if as_json:
        echo_json(certificate)
    else:
        _print(certificate)
    if certificate["verdict"] == "fail":
        context.exit(GateError.exit_code)


def _certify(fp32: Path, int8: Path, options: CompareOptions) -> dict[str, Any]:
    """Run both models on the data and return the certificate.

    Raises:
        UsageError: recordings are given with a table of predictions.
        OutputError: the certificate exists already and may not be overwritten.
    """
    from capsule_edge.evaluation._files import check_free
    from capsule_edge.evaluation.datasets import load_dataset
    from capsule_edge.evaluation.parity import certificate_stem, compare_models, compare_table
    from capsule_edge.runtime.errors import UsageError
    from capsule_edge.runtime.inference import open_model

    is_table = fp32.suffix.lower() == ".csv"
    if int8.suffix.lower() == ".csv":
        raise UsageError(
            f"{int8} is a table of predictions in the place of the INT8 model",
            hint="give the table first and the model second",
        )
    if is_table and options.recordings:
        raise UsageError(
            "a table of predictions has no recordings", hint="leave --recording out, or compare two models"
        )
    threads, bootstrap = options.threads, {"resamples": options.resamples, "seed": options.seed}
    second = open_model(int8, backend=options.int8_backend or options.backend, threads=threads)
    if options.out is not None:
        stem = certificate_stem(second.path.name, "conversion" if is_table else "shipping")
        check_free(options.out, f"{stem}.json", overwrite=options.overwrite)
    first = None if is_table else open_model(fp32, backend=options.backend, threads=threads)
    if first is not None:
        _check_order(first, second)
    dataset = load_dataset(data_folder(options.data), split=options.split, label_map=options.label_map)
    with progress("comparing", len(dataset.samples) * (1 if first is None else 2)) as advance:
        if first is None:
            certificate = compare_table(fp32, second, dataset, advance=advance, **bootstrap)
        else:
            certificate = compare_models(
                first, second, dataset, recordings=options.recordings, advance=advance, **bootstrap
            )
    warn_left_out(dataset, certificate["data"]["skipped"])
    warn_of_overlap(certificate["data"]["training_overlap"], certificate["data"]["frames"])
    return certificate


def _check_order(first: Backend, second: Backend) -> None:
    """Refuse two models in the wrong order: a loss would count as a gain.

    The order is wrong if only the first is INT8, or if the first was certified against the second.
    """
    from capsule_edge.runtime.errors import UsageError

    hint = "give the FP32 model first and the INT8 model second"
    if first.spec.precision == "int8" and second.spec.precision == "fp32":
        raise UsageError(f"{first.path.name} is INT8 and {second.path.name} FP32", hint=hint)
    against = first.spec.certificates.get("shipping", {}).get("against_sha256")
    if against == second.sha256 and first.sha256 != second.sha256:
        raise UsageError(f"{first.path.name} was certified against {second.path.name}", hint=hint)


def _print(certificate: dict[str, Any]) -> None:
    from capsule_edge.evaluation.datasets import describe_frames

    show = console().print
    data, models = certificate["data"], certificate["models"]
    show(
        f"{models['b']['file']} (B) against {models['a']['file']} (A) on {data['name']}, "
        f"split {data['split'] or 'all'}: {describe_frames(data['frames'], data['videos'])}"
    )
    show(_gate_table(certificate))
    show(_class_table(certificate))
    show(_overall_table(certificate))
    test = certificate["mcnemar"]
    show(
        f"difference of a probability: largest {number(certificate['max_abs_dp'], 4)}, "
        f"mean {number(certificate['mean_abs_dp'], 5)}; frames that only A gets right {test['only_a_right']}, "
        f"only B {test['only_b_right']}, McNemar p {number(test['p_value'])}"
    )
    _print_remarks(certificate)
    show(f"verdict: {certificate['verdict']}")


def _gate_table(certificate: dict[str, Any]) -> Any:
    rows = table("gate", "value", "allowed", "verdict")
    for gate in certificate["gates"]:
        # Agreement may not be lower than its limit. All other gates are losses, which may not be higher.
        bound = ">=" if gate["name"] == "agreement" else "<="
        limit = f"{bound} {number(gate['limit'], 4)}"
        rows.add_row(gate["name"], number(gate["value"], 4), limit, gate["verdict"])
    return rows


def _class_table(certificate: dict[str, Any]) -> Any:
    rows = table("class", "frames", "sens. A", "sens. B", "B - A", "B - A, 95 %", "spec. A", "spec. B")
    for key, entry in certificate["per_class"].items():
        sensitivity, specificity = entry["sensitivity"], entry["specificity"]
        rows.add_row(
            key,
            number(entry["support"]),
            *(number(sensitivity[side]) for side in ("a", "b", "delta")),
            interval_cell(sensitivity["interval"]),
            *(number(specificity[side]) for side in ("a", "b")),
        )
    return rows


def _overall_table(certificate: dict[str, Any]) -> Any:
    rows = table("", "A", "B", "B - A", "B - A, 95 %")
    for name in ("accuracy", "macro_f1", "balanced_accuracy", "mean_auc", "ece"):
        figure = certificate[name]
        cells = [number(figure[side], 4) for side in ("a", "b", "delta")]
        rows.add_row(name, *cells, interval_cell(figure["interval"], 4))
    return rows


def _print_remarks(certificate: dict[str, Any]) -> None:
    """Print what limits the figures, the events found in recordings, and the most frequent changes of label."""
    from capsule_edge.evaluation.datasets import describe_overlap

    show, data = console().print, certificate["data"]
    absent = [key for key, entry in certificate["per_class"].items() if not entry["support"]]
    if absent:
        show(f"no frame of {', '.join(absent)}: averages are over the other classes")
    if certificate["bootstrap"]["reason"]:
        show(f"no intervals: {certificate['bootstrap']['reason']}")
    events = certificate["events"]
    if events is not None:
        show(
            f"events in {events['recordings']} recordings: A finds {events['a']}, B {events['b']}, "
            f"both {events['matched']} (IoU {events['iou']}), agreement {number(events['agreement'])}"
        )
    for flip in certificate["flips"][:_SHOWN]:
        worst = ", ".join(frame["file"] for frame in flip["worst"][:2])
        show(f"{flip['frames']} {flip['from']} became {flip['to']}: {worst}")
    show(describe_overlap(data["training_overlap"], data["frames"]))
